"""Logits, temperature and noise to the tokens that may win, in one pass over the rows.

The noise is that of engine.noise, bit for bit up to its hash; what follows is float32, and what it
is off by is the business of engine.draws. A program does one chunk of one row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_CHUNK = 1024
_SPREAD = tl.constexpr(0x9E3779B1)
_MIX_1 = tl.constexpr(0x85EBCA6B)
_MIX_2 = tl.constexpr(0xC2B2AE35)
_ALL = tl.constexpr(0xFFFFFFFF)
_UNIT = tl.constexpr(2.0**-32)


def best_of_chunks(rows: Tensor, draws: Tensor) -> Tensor:
    """See engine.draws.Search."""
    num_draws, vocab_size = len(draws), rows.shape[1]
    num_chunks = triton.cdiv(vocab_size, _CHUNK)
    found = torch.empty(num_draws, num_chunks, 5, dtype=torch.float32, device=rows.device)
    peaks = rows.amax(-1)  # NaN if there is one
    with torch.cuda.device_of(rows):
        _search[(num_draws, num_chunks)](
            rows, peaks, draws, found, rows.stride(0), vocab_size, CHUNK=_CHUNK
        )
    return found


@triton.jit
def _search(rows, peaks, draws, found, row_stride, vocab_size, CHUNK: tl.constexpr):
    draw = draws + tl.program_id(0) * 4
    row = tl.load(draw)
    low = tl.load(draw + 1).to(tl.uint32)
    high = tl.load(draw + 2).to(tl.uint32)
    temperature = tl.load(draw + 3).to(tl.int32).to(tl.float32, bitcast=True)
    place = tl.arange(0, CHUNK)
    token = tl.program_id(1) * CHUNK + place
    is_token = token < vocab_size
    logit = tl.load(rows + row * row_stride + token, mask=is_token, other=float("-inf"))
    logit = logit.to(tl.float32)
    peak = tl.load(peaks + row).to(tl.float32)
    score = (logit - peak) / temperature + gumbel_of(hash_of(token, low, high))
    score = tl.where(is_token, score, float("-inf"))
    winner = tl.argmax(score, 0)
    others = tl.where(place == winner, float("-inf"), score)
    out = found + (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * 5
    tl.store(out, tl.max(score, 0))
    tl.store(out + 1, tl.max(others, 0))
    tl.store(out + 2, tl.sum(tl.where(place == winner, logit, 0.0), 0))
    tl.store(out + 3, (tl.program_id(1) * CHUNK + winner).to(tl.float32))
    tl.store(out + 4, peak)


@triton.jit
def hash_of(token, low, high):
    """As engine.noise.hash_noise, the key in two halves."""
    value = token.to(tl.uint32) * _SPREAD + low
    value = (value ^ (value >> 16)) * _MIX_1 + high
    value = (value ^ (value >> 13)) * _MIX_2
    return value ^ (value >> 16)


@triton.jit
def gumbel_of(hashes):
    """As engine.noise.gumbel: -log(-log(1 - x)), with a series where 1 - x would lose digits."""
    x = (hashes.to(tl.float32) + 0.5) * _UNIT
    rest = ((hashes ^ _ALL).to(tl.float32) + 0.5) * _UNIT
    series = x * (1.0 + x * (1 / 2 + x * (1 / 3 + x * (1 / 4 + x * (1 / 5)))))
    return -tl.log(tl.where(x < 1 / 16, series, -tl.log(rest)))
