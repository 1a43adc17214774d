"""Converts a GGUF file to a folder of safetensors, once; bit-identical logits in float32."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from engine.errors import ModelRefusedError
from engine.staged_folder import staged_folder

_SPARE = 1.2  # share of the output's size that must be free on the disk


def convert_gguf(gguf: Path, output: Path) -> None:
    """Writes config, tokenizer and float32 weights of `gguf` to `output`, all or nothing.

    Shows transformers' progress bar. Raises ModelRefusedError for a damaged file, a full disk or a
    folder that cannot be written.
    """
    if output.exists():
        raise ModelRefusedError(gguf.name, f"{output} is there already; delete it to convert again")
    try:
        with staged_folder(output) as folder:
            _refuse_full_disk(gguf, folder)
            try:
                _write(gguf, folder)
            except Exception as error:  # whatever a damaged file makes the loader raise
                raise _refused(gguf, error) from error
    except OSError as error:
        raise _refused(gguf, error) from error


def _refused(gguf: Path, error: Exception) -> ModelRefusedError:
    reason = str(error).strip().split("\n", 1)[0]
    return ModelRefusedError(str(gguf), f"cannot be converted: {reason}")


def _refuse_full_disk(gguf: Path, folder: Path) -> None:
    needed = int(gguf.stat().st_size * 8 * _SPARE)  # 4-bit weights become 32-bit
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelRefusedError(
            gguf.name,
            f"{needed >> 20} MiB of disk needed in {folder.parent}, {free >> 20} MiB free",
        )


def _write(gguf: Path, folder: Path) -> None:
    transformers_logging.set_verbosity_error()
    source = str(gguf.parent)
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype="float32")
    config = loaded.config.to_dict()
    config.pop("quantization_config", None)
    config["dtype"] = "float32"
    plain = type(loaded)(type(loaded.config).from_dict(config))  # a GGUF-loaded one is not saved
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=gguf.name).save_pretrained(folder)
