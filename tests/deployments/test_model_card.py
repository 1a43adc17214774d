"""What tells models and targets apart: fingerprints, and the identity that a host asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cluster.config import ClusterConfig
from deployments.identity import identity_of
from deployments.messages import Identity
from deployments.model_card import fingerprint


def test_the_fingerprint_follows_the_model_and_the_numerics(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = fingerprint(tmp_path, "fast")
    assert fingerprint(tmp_path, "invariant") != before
    (tmp_path / "config.json").write_text("{ }")
    assert fingerprint(tmp_path, "fast") != before


def test_the_fingerprint_tells_two_trainings_of_one_shape_apart(tmp_path: Any) -> None:
    header, num_bytes = b'{"w": {}}', 4 * 2**20
    start = len(header).to_bytes(8, "little") + header

    def of(weights: bytes, folder: str = "a") -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "model.safetensors").write_bytes(start + weights)
        return fingerprint(tmp_path / folder)

    generator = np.random.default_rng(0)
    one, other = generator.bytes(num_bytes), generator.bytes(num_bytes)
    assert of(one) == of(one, "b")
    assert of(one) != of(other)
    assert of(one) != of(one[: -(2**17)] + other[-(2**17) :])
    assert of(one) != of(one[:-1] + bytes([one[-1] ^ 1]))
    assert len({of(one), of(one[:-1]), of(b""), of(b"x"), of(b"y")}) == 5


def test_what_is_no_safetensors_file_has_a_fingerprint_too(tmp_path: Any) -> None:
    found = set()
    for content in (b"", b"x", b"\xff" * 8, b"\xff" * 100):
        (tmp_path / "model.safetensors").write_bytes(content)
        found.add(fingerprint(tmp_path))
    assert len(found) == 4


def test_a_target_that_knows_other_drafters_is_another(tmp_path: Path) -> None:
    """Its model is the same; what is configured of this host's drafters is not."""

    def identity(host: str, **drafter: object) -> Identity:
        drafters = [
            {"name": "code", "kind": "prompt_lookup", "host": "code", **drafter},
            {"name": "math", "kind": "prompt_lookup", "host": "math"},
        ]
        hosts = [{"name": "code"}, {"name": "math"}]
        config = ClusterConfig.model_validate({"drafters": drafters, "hosts": hosts})
        return identity_of(tmp_path, config, host)

    (tmp_path / "config.json").write_text("{}")
    assert identity("code") == identity("code")
    assert identity("code") != identity("code", max_draft_length=4)
    assert identity("math") == identity("math", max_draft_length=4)
