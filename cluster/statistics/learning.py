"""Exchanges what learners learn: takes what is new, sends it, and gives back what all have learnt.

A step takes and gives on the learners' own thread, for microseconds, and waits for the store
between the two on the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from cluster.statistics.arrays import ArrayView, CellLayout, Floats
from cluster.statistics.exchange import Exchange, ExchangeCounters
from cluster.statistics.survival import Weights, weighed
from policies.sharing import Sharer

T = TypeVar("T")


class Caller(Protocol):
    """Runs a function on the thread that owns the learners, and waits for what it returns."""

    def __call__(self, function: Callable[[], T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class SharedLearner:
    """A learner, and its arrays as cells. `leans_on_others`: a tenant's survival counts, behind
    which those of the others stand; else a tenant goes by its own."""

    learner: Sharer
    layout: CellLayout
    leans_on_others: bool


class LearningExchange:
    """`on_owner` reaches the learners' thread; everything else runs on the one that steps."""

    def __init__(
        self, exchange: Exchange, half_life_s: float, weights: Weights, on_owner: Caller
    ) -> None:
        self._exchange = exchange
        self._half_life_s = half_life_s
        self._weights = weights
        self._on_owner = on_owner
        self._shared: list[tuple[SharedLearner, ArrayView]] = []

    @property
    def counters(self) -> ExchangeCounters:
        return self._exchange.counters

    def follow(self, learners: Sequence[SharedLearner]) -> None:
        """These from now on; what others had not sent yet is lost with them.

        For learners that are in use: on their own thread, with the change of their arrays.
        """
        self._shared = [(each, ArrayView(each.layout, self._half_life_s)) for each in learners]

    def step(self) -> bool:
        """Whether the store was reached; if not, learners go on from what they know."""
        shared = self._send()
        if not self._exchange.step():
            return False
        snapshot = self._exchange.snapshot
        tables = [self._merged(each, view.arrays(snapshot)) for each, view in shared]

        def use() -> None:
            if self._shared is not shared:  # these arrays may have another shape now
                return
            for (each, _), (merged, start) in zip(shared, tables, strict=True):
                each.learner.use(merged, start)

        self._on_owner(use)
        return True

    def finish(self) -> bool:
        """Sends what is left; whether the store has it all now."""
        self._send()
        return self._exchange.finish()

    def _send(self) -> Sequence[tuple[SharedLearner, ArrayView]]:
        """Whose counts were taken."""

        def take() -> tuple[list[tuple[SharedLearner, ArrayView]], list[Mapping[str, Floats]]]:
            return self._shared, [each.learner.take() for each, _ in self._shared]

        shared, taken = self._on_owner(take)
        for (each, _), arrays in zip(shared, taken, strict=True):
            for tenant, array in arrays.items():
                cells = each.layout.cells(array)
                if cells:
                    self._exchange.add(tenant, cells)
        return shared

    def _merged(
        self, each: SharedLearner, arrays: Mapping[str, Floats]
    ) -> tuple[Mapping[str, Floats], Floats]:
        shape = each.layout.shape
        if each.leans_on_others:
            return weighed(arrays, shape, self._weights)
        return arrays, np.zeros(shape)
