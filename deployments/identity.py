"""Which target model a process means, and which drafters: drafts for another would be noise."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.statistics import keys
from deployments.messages import Identity
from deployments.model_card import fingerprint

_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model")


def identity_of(model_dir: Path, config: ClusterConfig, host: str) -> Identity:
    """Of the target's tokenizer and weights, the same wherever the model lies, and of what `config`
    says of the drafters at `host`.

    Not of what is in the drafters' own folders, which a target need not have: a drafter that was
    trained anew in the same folder passes for the old one, whose drafts are as lossless.
    """
    digest = hashlib.sha256()
    for name in _VOCABULARY_FILES:
        path = model_dir / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    drafters = [drafter.model_dump(mode="json") for drafter in config.drafters_at(host)]
    return Identity(digest.hexdigest()[:16], fingerprint(model_dir), keys.fingerprint(drafters))
