"""The target's last hidden state of every cached token, for drafters that run on top of it.

States live in the same blocks as the target's KV, so that a prefix that is shared, rolled back or
evicted takes its states along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class HiddenStates:
    """[slots of the KV cache, hidden_size], written by the target's forward, slot by slot."""

    def __init__(self, num_blocks: int, block_size: int, hidden_size: int, like: Tensor) -> None:
        self.block_size = block_size
        self._states = like.new_zeros((num_blocks + 1) * block_size, hidden_size)  # one is spare

    def write(self, slots: Tensor, states: Tensor) -> None:
        """`states` [num_tokens, hidden_size] of the tokens whose KV went to `slots`."""
        self._states.index_copy_(0, slots, states)

    def read(self, block_table: Sequence[int], start: int, end: int) -> Tensor:
        """A copy of the states at positions `start` to `end`: [end - start, hidden_size]."""
        first, last = start // self.block_size, -(-end // self.block_size)
        blocks = torch.tensor(block_table[first:last], dtype=torch.long)
        slots = blocks[:, None] * self.block_size + torch.arange(self.block_size)
        offset = start - first * self.block_size
        wanted = slots.flatten()[offset : offset + end - start].to(self._states.device)
        return self._states.index_select(0, wanted)


@dataclass(frozen=True, slots=True)
class CachedPast:
    """The states of a sequence's first `num_known` tokens. Valid until its blocks change hands."""

    states: HiddenStates
    block_table: Sequence[int]
    num_known: int

    def read(self, start: int, end: int) -> Tensor:
        return self.states.read(self.block_table, start, end)


@dataclass(frozen=True, slots=True)
class StoredPast:
    """The states of a whole text at hand: [num_tokens, hidden_size]."""

    states: Tensor

    @property
    def num_known(self) -> int:
        return len(self.states)

    def read(self, start: int, end: int) -> Tensor:
        return self.states[start:end]
