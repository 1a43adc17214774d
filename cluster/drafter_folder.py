"""What `hedgerow check` says of a drafter's folder: whether it is one, whole, and for this target.

Reads JSON only. The engine looks again when it loads the weights; `engine/drafters/folder.py`
writes these files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FORMAT, VERSION = "hedgerow-drafter", 1
_PROJECT = Path(__file__).parents[1]
_Json = Mapping[str, Any]


def find_folder(path: str) -> Path:
    """`path` as it stands, or else below the project's own folder."""
    given = Path(path)
    return given if given.is_dir() or given.is_absolute() else _PROJECT / given


def folder_problems(path: str, kind: str, target_model: str, stops: bool) -> Iterator[str]:
    """What is wrong with the folder for a drafter of this kind; `stops` if it has a threshold."""
    folder = find_folder(path)
    config = _read(folder / "config.json")
    if config is None:
        yield f"{path!r} is no drafter: it has no config.json that can be read"
        return
    if config.get("format") != FORMAT:
        yield f"{path!r} is no drafter: its format is not {FORMAT!r}"
        return
    if config.get("version") != VERSION:
        yield f"{path!r} has format version {config.get('version')!r}; expected {VERSION}"
        return
    if config.get("kind") != kind:
        yield f"{path!r} is of kind {config.get('kind')!r}, not {kind!r}"
    if not (folder / "weights.safetensors").is_file():
        yield f"{path!r} has no weights.safetensors"
    can_stop = config.get("num_acceptance_blocks") is not None
    if stops and not can_stop and not (folder / "calibration.json").is_file():
        yield f"{path!r} has no acceptance head and no calibration for stop_threshold"
    trained_for = config.get("target")
    yield from _target_problems(path, kind, trained_for, target_model)


def _target_problems(path: str, kind: str, trained_for: object, target_model: str) -> Iterator[str]:
    """A target that is a folder is compared by its files, any other by its name."""
    if not isinstance(trained_for, Mapping):
        yield f"{path!r} does not say which target it drafts for"
        return
    name = trained_for.get("name")
    target = Path(target_model)
    config = _read(target / "config.json")
    if config is None:
        if name != target_model and kind == "head":
            yield f"{path!r} drafts for {name!r}, not for {target_model!r}"
        return
    sizes = {**config, **config.get("text_config", {})}
    facts: dict[str, object] = {"vocab_size": sizes.get("vocab_size")}
    if kind == "head":
        facts |= {key: sizes.get(key) for key in ("model_type", "hidden_size")}
    tokenizer = _read(target / "tokenizer.json")
    if tokenizer is not None:
        facts["vocab_hash"] = vocab_hash(tokenizer)
    for fact, ours in facts.items():
        if trained_for.get(fact) != ours:
            theirs = trained_for.get(fact)
            yield (
                f"{path!r} drafts for {name!r}, not for {target_model!r}: "
                f"{fact} {theirs} is not {ours}"
            )


def vocab_hash(tokenizer: _Json) -> str | None:
    """SHA-256 of all (id, token) pairs of a tokenizer.json; None if it has another form."""
    try:
        tokens = tokenizer["model"]["vocab"]
        if isinstance(tokens, list):
            tokens = {token: i for i, (token, _) in enumerate(tokens)}
        pairs = {(int(i), str(token)) for token, i in tokens.items()}
        pairs |= {(int(t["id"]), str(t["content"])) for t in tokenizer.get("added_tokens", ())}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest()


def _read(path: Path) -> _Json | None:
    """A JSON object, or None."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
