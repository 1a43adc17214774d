"""Attention by our kernel is that of tiles, and a token's bits are its own in both numerics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from kernel_support import needs_kernels, numbers
from torch import Tensor

from engine.attention import new_batch
from engine.config import Numerics
from engine.kv_cache import KVCache, Span
from engine.span_attention import SpanBatch

BLOCK_SIZE = 4
every_window = pytest.mark.parametrize("window", [None, 1, 5, 100])

pytestmark = needs_kernels


def cache_of(num_kv_heads: int = 2, dim: int = 16) -> KVCache:
    shape = torch.zeros(1, num_kv_heads, dim)
    made = KVCache([(shape, shape)], 60, BLOCK_SIZE)
    for side in made.layers[0]:
        side.copy_(numbers(*side.shape))
    return made


def attend(
    cache: KVCache, spans: Sequence[Span], new: Sequence[tuple[Tensor, ...]],
    numerics: Numerics = "fast", window: int | None = None,
) -> list[Tensor]:  # fmt: skip
    """Of each span its own rows."""
    batch = new_batch(spans, cache, numerics)
    assert isinstance(batch, SpanBatch) == cache.has_kernel
    q, k, v = (torch.cat(side) for side in zip(*new, strict=True))
    return list(batch.attend(0, q, k, v, 0.25, window).split([span.num_new for span in spans]))


def new_tokens(
    num_new: int, heads: int = 6, kv_heads: int = 2, dim: int = 16
) -> tuple[Tensor, ...]:
    return tuple(numbers(num_new, size, dim) for size in (heads, kv_heads, kv_heads))


def mixed_spans() -> list[Span]:
    """In blocks that lie anywhere, none of them another's."""
    free = iter(np.random.default_rng(0).permutation(60).tolist())
    sizes = [(0, 1), (9, 2), (30, 3), (17, 4), (3, 1), (12, 17), (0, 20), (5, 37)]
    return [
        Span(start, new, [next(free) for _ in range(-(-(start + new) // BLOCK_SIZE))])
        for start, new in sizes
    ]


@every_window
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"), [(6, 2, 16), (4, 4, 8), (8, 1, 40), (10, 2, 64), (5, 5, 24)]
)
def test_attention_by_the_kernel_is_that_of_tiles(
    heads: int, kv_heads: int, dim: int, window: int | None
) -> None:
    spans = mixed_spans()
    new = [new_tokens(span.num_new, heads, kv_heads, dim) for span in spans]
    cache, other = cache_of(kv_heads, dim), cache_of(kv_heads, dim)
    other.has_kernel = False
    by_kernel = attend(cache, spans, new, "fast", window)
    by_tiles = attend(other, spans, new, "fast", window)
    for mine, wanted in zip(by_kernel, by_tiles, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_fill_registers_are_left_to_tiles() -> None:
    assert not cache_of(dim=12).has_kernel


@every_window
def test_a_tokens_attention_has_its_own_bits_whatever_comes_with_it(window: int | None) -> None:
    spans = mixed_spans()
    new = [new_tokens(span.num_new) for span in spans]
    together = attend(cache_of(), spans, new, window=window)
    for span, own, mine in zip(spans, new, together, strict=True):
        cache = cache_of()
        rows = []
        for i in range(span.num_new):
            step = Span(span.start + i, 1, span.block_table)
            token = tuple(side[i : i + 1] for side in own)
            rows += attend(cache, [step], [token], window=window)
        assert torch.equal(torch.cat(rows), mine)


def test_what_a_block_holds_beyond_the_sequence_is_not_touched() -> None:
    clean, dirty = cache_of(), cache_of()
    for side in dirty.layers[0]:
        side[5, 2:] = float("nan")
        side[7] = float("nan")
    span, new = Span(8, 2, [3, 4, 5, 7]), new_tokens(2)
    assert torch.equal(attend(clean, [span], [new])[0], attend(dirty, [span], [new])[0])
