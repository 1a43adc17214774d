"""Sampled tokens of many rows without a copy of the rows: the device narrows, the host decides.

The device scores all tokens in float32 and names the best of every chunk of the vocabulary. Its
logarithms and divisions are not numpy's, so that it has no say where scores are near: all tokens
within `MARGIN` of the best are scored once more as `TokenSampler.sample` does, and a row of which
not all of these are known is copied after all. A score that can win is off by less than 3e-5
(|scaled logit| < 27 and |noise| < 23, each to 2^-21; the double logarithm to 1e-5), a thirtieth of
half the margin, so that what is drawn is what the host alone would draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.cuda_kernels import has_kernels
from engine.noise import key_of
from engine.sampling import TokenSampler

MARGIN = 2e-3
_MOST_IDS = 2**24  # that float32 can tell apart

Draw = tuple[TokenSampler, int]
"""Who draws, and the token's position."""

Search = Callable[[Tensor, Tensor], Tensor]
"""Rows [num_rows, vocab] and draws [num_draws, 4] -> float32 [num_draws, num_chunks, 5].

A draw is a row, the halves of its key, low and high, and the bits of its temperature. Of each chunk
of its row come the best score and the next, the logit and the id of the best, and the row's peak.
"""


def find_search(rows: Tensor) -> Search | None:
    """The kernel, where there is one."""
    if not has_kernels(rows.device) or rows.shape[1] > _MOST_IDS:
        return None
    from engine.draw_kernel import best_of_chunks

    return best_of_chunks


def draw_rows(rows: Tensor, draws: Sequence[Draw], search: Search) -> dict[int, int]:
    """Tokens by row, draw i being of row i; without those that are left to the host."""
    wanted = [row for row, (sampler, _) in enumerate(draws) if sampler.is_pure]
    if not wanted:
        return {}
    numbers = np.array([_numbers_of(row, *draws[row]) for row in wanted], np.int64)
    found = search(rows, torch.from_numpy(numbers).to(rows.device)).cpu().numpy()
    scores, next_scores, logits, ids, peaks = np.moveaxis(found, 2, 0)  # [num_draws, num_chunks]
    level = scores.max(1) - MARGIN
    is_known = np.isfinite(peaks[:, 0]) & (next_scores.max(1) < level)
    tokens = {}
    for i in np.flatnonzero(is_known):
        near = scores[i] >= level[i]
        sampler, position = draws[wanted[i]]
        tokens[wanted[i]] = sampler.sample_among(
            ids[i, near].astype(np.intp), logits[i, near], peaks[i, 0], position
        )
    return tokens


def _numbers_of(row: int, sampler: TokenSampler, position: int) -> tuple[int, int, int, int]:
    key = key_of(sampler.params.seed, position)
    return row, key & 0xFFFFFFFF, key >> 32, int(sampler.divisor.view(np.int32))
