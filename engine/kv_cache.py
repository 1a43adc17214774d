"""Keys and values of all layers in blocks, where tokens are among them, and who reads them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine import cpu_kernels
from engine.attention_kernel import LANES

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """New tokens of one sequence: `num_new` of them, from position `start` on."""

    start: int
    num_new: int
    block_table: Sequence[int]

    @property
    def end(self) -> int:
        return self.start + self.num_new


class KVCache:
    """Keys and values of all layers: per layer two [num_blocks + 1, block_size, heads, head_dim].

    `shapes` has a tensor [tokens, heads, head_dim] of each side of each layer. The last block is no
    sequence's: what nobody will read goes there.
    """

    def __init__(self, shapes: Sequence[tuple[Tensor, Tensor]], num_blocks: int, block_size: int):
        self.num_blocks, self.block_size = num_blocks, block_size
        self.layers = [
            tuple(t.new_zeros(num_blocks + 1, block_size, *t.shape[1:]) for t in pair)
            for pair in shapes
        ]
        self.has_kernel = all(
            keys.shape == values.shape
            and keys.shape[-1] % LANES == 0
            and cpu_kernels.can_read(keys)
            and cpu_kernels.can_read(values)
            for keys, values in self.layers
        )
        """Whether `engine.attention_kernel` can read all of it."""
        self._threads = cpu_kernels.Threads()

    def threads(self) -> AbstractContextManager[None]:
        """Those that a forward over this cache is computed on."""
        return self._threads.taken() if self.has_kernel else nullcontext()

    @property
    def spare_block(self) -> int:
        return self.num_blocks

    def slots(self, span: Span) -> Indices:
        """Cache slot of each new token of `span`: [num_new]."""
        positions = np.arange(span.start, span.end)
        blocks = np.asarray(span.block_table)[positions // self.block_size]
        return blocks * self.block_size + positions % self.block_size


class Attends(Protocol):
    """What a layer needs of the batch of a forward."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None
    ) -> Tensor:
        """q, k, v [tokens, heads, dim] -> [tokens, heads, value dim]."""
        ...
