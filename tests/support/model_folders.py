"""Folders of tiny models, whole ones and ones with a config alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_models import tiny_model
from transformers import PreTrainedConfig


def saved(folder: Path, family: str = "llama") -> Path:
    tiny_model(family).save_pretrained(folder)
    return folder


def folder_of(config: PreTrainedConfig | dict[str, Any], folder: Path) -> Path:
    """A model's folder whose weights nobody gets to read."""
    folder.mkdir(exist_ok=True)
    raw = config if isinstance(config, dict) else config.to_dict()
    (folder / "config.json").write_text(json.dumps(raw))
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    return folder
