"""Where kernels are tested: on the GPU if there is one, else in Triton's interpreter, if at all.

And what they must compute, in plain torch and numpy, for tests of all that is around them.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.packed_batch import Sides, Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton is not installed, not even to be interpreted"
)


def attend_by_rows(
    q: Tensor, sides: Sides, tiles: Tiles, scale: float, window: int | None
) -> Tensor:
    """Row by row, what the kernel computes in tiles; keys that are not seen are not read."""
    out = q.new_full((*q.shape[:2], sides[1].shape[3]), np.nan)
    block_size = sides[0].shape[1]
    for first, size, start, table in tiles.each.tolist():
        for i in range(size):
            end = start + i + 1
            seen = torch.arange(max(0, end - (window or end)), end)
            blocks = tiles.tables[table + seen // block_size]
            k, v = (
                side[blocks, seen % block_size].repeat_interleave(q.shape[1] // side.shape[2], 1)
                for side in sides
            )
            weights = (torch.einsum("hd,khd->hk", q[first + i], k) * scale).softmax(-1)
            out[first + i] = torch.einsum("hk,khd->hd", weights, v)
    return out
