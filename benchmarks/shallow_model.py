"""A model drafter for a target that has no smaller relative: the target's own first layers.

A stand-in, not a good drafter: nothing was trained to read the output off so early, so few of its
drafts are accepted. It exercises the `model` drafter with the right vocabulary and tokenizer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
_LAYERS = "model.layers."


def write_shallow_model(source: Path, num_layers: int, folder: Path) -> Path:
    """Writes the first `num_layers` decoder layers of the model in `source` to `folder`."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = num_layers
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:num_layers]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    kept = {}
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                if _layer_of(name) < num_layers:
                    kept[name] = tensors.get_tensor(name)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _layer_of(name: str) -> int:
    """The decoder layer that a weight belongs to; -1 for what is in none."""
    return int(name.removeprefix(_LAYERS).split(".")[0]) if name.startswith(_LAYERS) else -1
