"""The attention of one forward by our kernel for CPUs, beside the tiles of `engine.attention`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from engine import cpu_kernels
from engine.attention_kernel import attend
from engine.kv_cache import KVCache, Span

_UNBOUNDED = 1 << 40
_MOST_NEW = 16  # tokens of a span that a thread takes at a time


class SpanBatch:
    """What the attention of one forward needs to know; handed through the model as a keyword."""

    def __init__(self, spans: Sequence[Span], cache: KVCache) -> None:
        self._cache = cache
        self.slots = torch.from_numpy(np.concatenate([cache.slots(span) for span in spans]))
        parts = list(_in_parts(spans))
        self._starts = np.array([part.start for part in parts])
        self._nums_new = np.array([part.num_new for part in parts])
        self._firsts = np.cumsum(self._nums_new) - self._nums_new
        self._tables = np.zeros((len(parts), max(len(s.block_table) for s in spans)), np.int64)
        for row, part in zip(self._tables, parts, strict=True):
            row[: len(part.block_table)] = part.block_table
        self._shares_heads = len(parts) < cpu_kernels.num_threads()

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None
    ) -> Tensor:
        """q, k, v [tokens, heads, dim] -> [tokens, heads, dim]."""
        keys, values = self._cache.layers[layer]
        for side, new in ((keys, k), (values, v)):
            side.view(-1, *side.shape[2:]).index_copy_(0, self.slots, new)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        num_parts = keys.shape[2] if self._shares_heads else 1
        attend(
            q.contiguous().numpy(), keys.numpy(), values.numpy(), self._firsts, self._starts,
            self._nums_new, self._tables, scale, window or _UNBOUNDED, num_parts, out.numpy(),
        )  # fmt: skip
        return out


def _in_parts(spans: Sequence[Span]) -> Iterator[Span]:
    """The same tokens, in spans for one thread each."""
    for span in spans:
        cuts = [*range(span.start, span.end, _MOST_NEW), span.end]
        for start, end in pairwise(cuts):
            yield Span(start, end - start, span.block_table)
