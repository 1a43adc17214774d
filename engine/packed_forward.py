"""A model's forward over packed batches, small ones recorded once for each size and replayed.

On a GPU a small step takes as long as starting its operators one by one. A recorded one starts at
once, over the same tensors as when it was recorded: the numbers of a batch are written there first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from engine.cuda_graphs import CudaGraphs
from engine.kv_cache import Span
from engine.packed_batch import Layout, PackedBatch, Packer

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Tokens of a recorded forward. Each keeps its logits: 900 rows together."""
_NUM_SHARING = 16  # sequences as long as the cache that the tables have room for


@dataclass(frozen=True, slots=True)
class Output:
    """`rows` of logits [num_rows, vocab], and the states of all tokens, if somebody wants them.

    `slots` are where the tokens went in the cache, padding aside or to the spare block.
    """

    rows: Tensor
    states: Tensor | None
    slots: Tensor


Forward = Callable[[Tensor, Tensor, PackedBatch, Tensor | int], Output]
"""Token ids, positions, their batch, and of which tokens to give logits: 0 stands for all."""

Record = Callable[[Callable[[], Output]], Callable[[], Output]]
"""See CudaGraphs.record."""


class PackedForward:
    """See the module. A size is recorded when it is first met."""

    def __init__(self, forward: Forward, packer: Packer, record: Record | None) -> None:
        """Without `record`, or after it failed once, every forward is run as it is."""
        self._forward, self._packer, self._record = forward, packer, record
        self._replays: dict[int, Callable[[], Output]] = {}
        cache = packer.cache
        room = Layout(SIZES[-1], SIZES[-1]).num_fixed + _NUM_SHARING * cache.num_blocks + 1
        self._numbers = torch.zeros(room, dtype=torch.long, device=cache.layers[0][0].device)

    @staticmethod
    def on_device(forward: Forward, packer: Packer) -> PackedForward:
        device = packer.cache.layers[0][0].device
        return PackedForward(forward, packer, CudaGraphs(device).record)

    def run(self, spans: Sequence[Span], tokens: Sequence[int], keep: Tensor) -> Output:
        """Logits of the tokens `keep`, in a tensor of their own; states until the next run."""
        output = self._run_recorded(spans, tokens)
        if output is None:
            batch = self._packer.exact(spans, tokens)
            return self._forward(batch.tokens, batch.positions, batch, keep)
        return replace(output, rows=output.rows.index_select(0, keep))

    def _run_recorded(self, spans: Sequence[Span], tokens: Sequence[int]) -> Output | None:
        """Logits and states of all tokens and some padding; None if it must be run as it is."""
        size = next((size for size in SIZES if size >= len(tokens)), None)
        if size is None or (self._record is None and size not in self._replays):
            return None
        layout = Layout(size, size)
        numbers = self._packer.pack(spans, tokens, layout)
        if len(numbers) > len(self._numbers):
            return None
        self._numbers[: len(numbers)].copy_(torch.from_numpy(numbers))
        if size not in self._replays:
            self._record_size(layout)
        replay = self._replays.get(size)
        return None if replay is None else replay()

    def _record_size(self, layout: Layout) -> None:
        assert self._record is not None
        batch = PackedBatch(self._numbers, layout, self._packer)
        forward = partial(self._forward, batch.tokens, batch.positions, batch, 0)
        try:
            self._replays[layout.num_tokens] = self._record(forward)
        except Exception:  # a family's code that cannot be recorded runs as it is
            self._record = None
