"""Which target model a process means: drafts for another one would be noise."""

from __future__ import annotations

import hashlib
from pathlib import Path

from deployments.messages import Identity
from deployments.model_card import fingerprint

_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model")


def identity_of(model_dir: Path) -> Identity:
    """Of the target's tokenizer and weights, the same wherever the model lies."""
    digest = hashlib.sha256()
    for name in _VOCABULARY_FILES:
        path = model_dir / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    return Identity(digest.hexdigest()[:16], fingerprint(model_dir))
