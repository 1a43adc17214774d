"""Where kernels are tested: on the GPU if there is one, else in Triton's interpreter, if at all.

And what they must compute, in plain torch and numpy, for tests of all that is around them.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.draws import MARGIN
from engine.noise import gumbel, spread
from engine.packed_batch import Sides, Tiles

CHUNK = 16
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
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


def search_by_rows(rows: Tensor, draws: Tensor) -> Tensor:
    """What the kernel computes in float32 here in float64, off by as much as it may be."""
    found = []
    for row, low, high, bits in draws.tolist():
        logits = rows[row].float().numpy()
        peak, temperature = logits.max(), np.int64(bits).astype(np.int32).view(np.float32)
        hashes = _hashes(np.arange(logits.size), low, high)
        noise = gumbel(hashes)
        errors = (hashes % 2001 / 1000.0 - 1.0) * 0.49 * MARGIN
        scores = ((logits - peak) / temperature + noise + errors).astype(np.float32)
        firsts = range(0, logits.size, CHUNK)
        found.append([(*_best(scores, logits, first), float(peak)) for first in firsts])
    return torch.tensor(found, dtype=torch.float32)


def _hashes(tokens: NDArray[np.int64], low: int, high: int) -> NDArray[np.uint32]:
    value = spread(tokens) + np.uint32(low)
    value = (value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B) + np.uint32(high)
    value = (value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return value ^ (value >> np.uint32(16))


def _best(
    scores: NDArray[np.float32], logits: NDArray[np.float32], first: int
) -> tuple[float, float, float, float]:
    chunk = scores[first : first + CHUNK]
    winner = int(chunk.argmax())
    others = np.delete(chunk, winner).max(initial=-np.inf)
    return float(chunk[winner]), float(others), float(logits[first + winner]), float(first + winner)
