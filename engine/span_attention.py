"""Attention of a few new tokens a sequence, read where their keys lie: a kernel for CPUs.

Stands beside the tiles of `engine.attention` for float32: nothing is copied, padded or masked, and
a key that a query must not see is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.cpu_kernels import attention
from engine.kv_cache import Indices, KVCache, Span

_UNBOUNDED = 1 << 40


class SpanAttention:
    """The queries of some spans, computed in one call; built once, used by every layer."""

    def __init__(
        self, spans: Sequence[Span], offsets: Indices, cache: KVCache, num_rows: int
    ) -> None:
        """`offsets` [spans] says at which of the forward's `num_rows` each span begins."""
        self._firsts = offsets
        self._starts = np.array([span.start for span in spans])
        self._nums_new = np.array([span.num_new for span in spans])
        self._tables = np.zeros((len(spans), max(len(s.block_table) for s in spans)), np.int64)
        for row, span in zip(self._tables, spans, strict=True):
            row[: len(span.block_table)] = span.block_table
        self._block_size = cache.block_size
        self.num_rows = num_rows
        """Rows of the output: the forward's own, 0 where another part has the token."""
        self.real_rows = np.concatenate(
            [first + np.arange(span.num_new) for first, span in zip(offsets, spans, strict=True)]
        )

    def attend(
        self, q: Tensor, sides: tuple[Tensor, ...], scale: float, window: int | None, careful: bool
    ) -> Tensor:
        """q [tokens, heads, dim], keys and values of a layer -> the same shape."""
        keys, values = sides
        num_kv_heads, dim = keys.shape[2:]
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        attend = attention(num_kv_heads, q.shape[1] // num_kv_heads, dim, self._block_size)
        attend(
            q.contiguous().numpy(), keys.numpy(), values.numpy(), self._firsts, self._starts,
            self._nums_new, self._tables, scale, window or _UNBOUNDED, out.numpy(),
        )  # fmt: skip
        return out
