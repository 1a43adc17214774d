"""What a target says of itself to the ingress."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_IDENTITY_FILES = ("config.json", "tokenizer.json", "calibration.json")
_MAX_HEADER_BYTES = 2**27  # the format allows 100 MB
_NUM_PIECES = 64
_PIECE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`model` is the name that requests use; `fingerprint` changes when answers may."""

    model: str
    vocab_size: int
    max_sequence_length: int
    fingerprint: str
    created_s: int


def fingerprint(folder: Path, *facts: str) -> str:
    """Hash of `facts` and of what is in a model's or a drafter's folder: its small files, and of
    each of its weights the size, the header and 64 pieces of 4 KiB, the last bytes among them.

    A few megabytes are read, however large it is. What another training changed between the pieces
    alone is not seen.
    """
    digest = hashlib.sha256("\0".join(facts).encode())
    for name in _IDENTITY_FILES:
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
        for part in _sample(path):
            digest.update(part)
    return f"fp_{digest.hexdigest()[:12]}"


def _sample(path: Path) -> Iterator[bytes]:
    """The header, which says how long it is in the first 8 bytes, and pieces from end to end."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        yield start
        yield file.read(min(int.from_bytes(start, "little"), _MAX_HEADER_BYTES))
        last = max(0, size - _PIECE_BYTES)
        for piece in range(_NUM_PIECES):
            file.seek(last * piece // (_NUM_PIECES - 1))
            yield file.read(_PIECE_BYTES)
