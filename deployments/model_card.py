"""What a target says of itself to the ingress."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_IDENTITY_FILES = ("config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`model` is the name that requests use; `fingerprint` changes when answers may."""

    model: str
    vocab_size: int
    max_sequence_length: int
    fingerprint: str
    created_s: int


def fingerprint(model_dir: Path, *facts: str) -> str:
    """Hash of a model's small files, the names and sizes of its weights, and `facts`."""
    digest = hashlib.sha256("\0".join(facts).encode())
    for name in _IDENTITY_FILES:
        path = model_dir / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    for path in sorted(model_dir.glob("*.safetensors")):
        digest.update(f"{path.name}\0{path.stat().st_size}".encode())
    return f"fp_{digest.hexdigest()[:12]}"
