"""A float32 weight in fewer bytes, each number of it to the bit.

Weights are published in 16 bits and often in fewer. Loaded in float32, most of the bytes that limit
a step say nothing: so weights are held as they came, if that gives every number back exactly, and
widened while they are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 32  # inputs that share a scale and an offset, as in GGUF files
WIDTH = 16  # outputs of a panel
_TRIED_ROWS = 16  # first, so that a weight of another kind costs no time

Form = Literal["float32", "float16", "bfloat16", "8 bits", "4 bits"]
"""Of n bits: scale * level + offset, by blocks of inputs; scales and offsets in float16."""


def panels_of(weight: Tensor) -> tuple[Form, Tensor]:
    """weight [outputs, inputs], float32 or float16 -> its narrowest exact form, and panels of that.

    Panels are [panels, inputs, WIDTH] with zeros beyond the last output: float32, or int16 as bits;
    of levels uint8 [panels, inputs / BLOCK, bytes], see `_level_panels`.
    """
    if weight.dtype == torch.float16:
        return "float16", _interleaved(weight).view(torch.int16)
    for form in _forms_of(weight[:_TRIED_ROWS]):
        held = _held_as(form, weight)
        if held is not None:
            return form, held
    return "float32", _interleaved(weight)


def _forms_of(rows: Tensor) -> Iterator[Form]:
    forms: tuple[Form, ...] = ("4 bits", "8 bits", "float16", "bfloat16")
    return (form for form in forms if _held_as(form, rows) is not None)


def _held_as(form: Form, weight: Tensor) -> Tensor | None:
    """Panels, or None if they would not give back the weight."""
    if form in ("4 bits", "8 bits"):
        return _level_panels(weight, 4 if form == "4 bits" else 8)
    narrow = weight.to(torch.float16 if form == "float16" else torch.bfloat16)
    if not torch.equal(narrow.float(), weight):
        return None
    return _interleaved(narrow).view(torch.int16)


def _interleaved(weight: Tensor) -> Tensor:
    """[outputs, inputs] -> [panels, inputs, WIDTH]."""
    padded = functional.pad(weight, (0, 0, 0, -len(weight) % WIDTH))
    return padded.view(-1, WIDTH, weight.shape[1]).transpose(1, 2).contiguous()


def _level_panels(weight: Tensor, num_bits: int) -> Tensor | None:
    """Of each block: WIDTH scales, WIDTH offsets, then the levels of its inputs in turn.

    A level of 8 bits is signed and without offset; of 4 bits output j + 8 is above output j.
    """
    num_outputs, num_inputs = weight.shape
    if num_inputs % BLOCK:
        return None
    blocks = weight.view(num_outputs, -1, BLOCK)
    if num_bits == 4:
        offset, largest, high = blocks.amin(2), blocks.amax(2), 15
        scale = (largest - offset) / 15
    else:
        scale, high = blocks.abs().amax(2) / 127, 127
        offset = torch.zeros_like(scale)
    scale, offset = scale.half(), offset.half()
    wide_scale, wide_offset = scale.float()[..., None], offset.float()[..., None]
    levels = ((blocks - wide_offset) / wide_scale.where(wide_scale != 0, 1.0)).round_()
    levels = levels.nan_to_num_().clamp_(-high if num_bits == 8 else 0, high)
    if not torch.equal(wide_scale * levels + wide_offset, blocks):
        return None
    sides = [_interleaved(side).view(torch.uint8) for side in (scale, offset)]
    lines = _interleaved(levels.view(num_outputs, num_inputs).to(torch.int8)).view(torch.uint8)
    if num_bits == 4:
        lines = lines[..., : WIDTH // 2] | lines[..., WIDTH // 2 :] << 4
    return torch.cat([*sides, lines.reshape(len(lines), num_inputs // BLOCK, -1)], 2)
