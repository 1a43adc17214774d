"""The tokens of one forward as one row of numbers on the device, for a kernel to read.

The sizes of all that a forward reads follow from a `Layout` alone, not from who is in the batch, so
that what was recorded over it once can be replayed for any batch that fits. Tokens that are missing
are sequences of one token each, in a block of the cache that nobody has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.config import Numerics
from engine.cuda_kernels import has_kernels
from engine.kv_cache import Indices, KVCache, Span

_TILE_ROWS = 64  # heads of a tile's tokens that share keys: rows of the products of a program


@dataclass(frozen=True, slots=True)
class Tiles:
    """A few tokens of one sequence each, whose queries are computed by one program.

    Of each tile: the row of its first token, how many tokens, the first one's position, and where
    the blocks of its sequence begin in `tables`.
    """

    each: Tensor  # [num_tiles, 4]
    tables: Tensor  # [blocks of all sequences]
    num_tokens: int
    """The most that a tile has."""


Sides = tuple[Tensor, Tensor]
"""Keys and values of a layer: [num_blocks, block_size, heads, dim] each."""

Kernel = Callable[[Tensor, Sides, Tiles, float, int | None], Tensor]
"""(q [tokens, heads, dim], sides, tiles, scale, window) -> [tokens, heads, value dim]"""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the numbers of a batch lie: token ids, positions, slots, tiles, then the tables."""

    num_tokens: int
    num_tiles: int

    @property
    def num_fixed(self) -> int:
        return 3 * self.num_tokens + 4 * self.num_tiles


class PackedBatch:
    """What the attention of one forward needs to know, as `AttentionBatch`, for a kernel."""

    def __init__(self, numbers: Tensor, layout: Layout, packer: Packer) -> None:
        """`numbers` are those of `Packer.pack`, or room for them."""
        rows = numbers[: 3 * layout.num_tokens].view(3, -1)
        self.tokens, self.positions, self.slots = rows.unbind()
        each = numbers[3 * layout.num_tokens : layout.num_fixed].view(-1, 4)
        self._tiles = Tiles(each, numbers[layout.num_fixed :], packer.tile_tokens)
        self._cache, self._kernel = packer.cache, packer.kernel

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None
    ) -> Tensor:
        """q, k, v [tokens, heads, dim] -> [tokens, heads, value dim]."""
        keys, values = self._cache.layers[layer]
        keys.view(-1, *keys.shape[2:]).index_copy_(0, self.slots, k)
        values.view(-1, *values.shape[2:]).index_copy_(0, self.slots, v)
        return self._kernel(q, (keys, values), self._tiles, scale, window)


@dataclass(frozen=True, slots=True)
class Packer:
    """Makes batches over one cache; a kernel's tile has up to `tile_tokens`."""

    cache: KVCache
    kernel: Kernel
    tile_tokens: int

    @staticmethod
    def find(cache: KVCache, numerics: Numerics, num_heads: int) -> Packer | None:
        """With the kernel, where there is one, in `fast` form."""
        keys = cache.layers[0][0]
        if numerics != "fast" or not has_kernels(keys.device):
            return None
        from engine.paged_kernel import attend_to_blocks

        num_sharing = max(1, num_heads // keys.shape[2])
        return Packer(cache, attend_to_blocks, max(1, _TILE_ROWS // num_sharing))

    def exact(self, spans: Sequence[Span], tokens: Sequence[int]) -> PackedBatch:
        """Without padding."""
        num_tiles = sum(-(-span.num_new // self.tile_tokens) for span in spans)
        layout = Layout(len(tokens), num_tiles)
        numbers = torch.from_numpy(self.pack(spans, tokens, layout))
        return PackedBatch(numbers.to(self.cache.layers[0][0].device), layout, self)

    def pack(self, spans: Sequence[Span], tokens: Sequence[int], layout: Layout) -> Indices:
        """The numbers of a batch: [num_fixed + blocks of all sequences + 1].

        Without as many tokens as `layout` has, tiles must be as many as tokens.
        """
        num_real, num_tokens = len(tokens), layout.num_tokens
        tables = [_used_blocks(span, self.cache.block_size) for span in spans]
        sizes = [len(table) for table in tables]
        rows = np.zeros((3, num_tokens), np.int64)
        rows[0, :num_real] = tokens
        rows[1, :num_real] = np.concatenate([np.arange(span.start, span.end) for span in spans])
        rows[2, :num_real] = np.concatenate([self.cache.slots(span) for span in spans])
        rows[2, num_real:] = self.cache.spare_block * self.cache.block_size
        tiles = _tiles_of(spans, np.cumsum([0, *sizes]).tolist(), self.tile_tokens)
        tiles += [(row, 1, 0, sum(sizes)) for row in range(num_real, num_tokens)]
        each = np.zeros((layout.num_tiles, 4), np.int64)
        each[: len(tiles)] = tiles
        return np.concatenate([rows.ravel(), each.ravel(), *tables, [self.cache.spare_block]])


def _used_blocks(span: Span, block_size: int) -> Indices:
    return np.asarray(span.block_table[: -(-span.end // block_size)], np.int64)


def _tiles_of(
    spans: Sequence[Span], tables: Sequence[int], tile_tokens: int
) -> list[tuple[int, int, int, int]]:
    """Of each tile what `Tiles` says; `tables` are where the spans' blocks begin."""
    tiles, row = [], 0
    for span, table in zip(spans, tables, strict=False):
        for first in range(0, span.num_new, tile_tokens):
            size = min(tile_tokens, span.num_new - first)
            tiles.append((row + first, size, span.start + first, table))
        row += span.num_new
    return tiles
