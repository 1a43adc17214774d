"""A store whose clock moves with that of the processes, and that fails when it is told to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from statistics_backends import MemoryBackend

from cluster.statistics.exchange import Exchange, ExchangeSettings
from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.memory import MemoryStore
from cluster.statistics.store import (
    Batch,
    Fold,
    Lifetimes,
    Reading,
    Receipt,
    StatisticsStore,
    StoreError,
    WriterRecord,
)

HOUR = Lifetimes(epoch_s=3600)
HALF_LIFE_S = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class FaultyStore:
    """`fails` before the call is made, `loses` its answer; `num_calls` counts them."""

    def __init__(self, store: StatisticsStore) -> None:
        self.store = store
        self.fails = False
        self.loses = False
        self.num_calls = 0

    def merge(self, batch: Batch) -> Receipt:
        self._before()
        receipt = self.store.merge(batch)
        if self.loses:
            raise StoreError("lost")
        return receipt

    def read(self, known: Mapping[Table, int], max_tables: int) -> Reading:
        self._before()
        return self.store.read(known, max_tables)

    def fold(self, fold: Fold) -> None:
        self._before()
        self.store.fold(fold)

    def clear(self, table: Table, writers: Mapping[str, WriterRecord]) -> None:
        self._before()
        self.store.clear(table, writers)

    def _before(self) -> None:
        self.num_calls += 1
        if self.fails:
            raise StoreError("away")


class World:
    """One store, whose clock moves with that of the processes."""

    def __init__(self) -> None:
        self.backend = MemoryBackend()
        self.clock = Clock()
        self.ids = itertools.count()

    def store(self) -> FaultyStore:
        return FaultyStore(self.memory())

    def memory(self) -> MemoryStore:
        return self.backend.store(HOUR)

    def exchange(self, store: StatisticsStore, **settings: int) -> Exchange:
        return Exchange(
            store,
            lambda: f"w{next(self.ids)}",
            self.clock,
            lambda: 0.0,
            ExchangeSettings(lifetimes=HOUR, half_life_s=HALF_LIFE_S, silence_s=600.0, **settings),
        )

    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.backend.now_us += round(seconds * 1_000_000)

    def merged(self, tenant: str = "t") -> dict[str, float]:
        reading = self.memory().read({}, 99)
        sums: dict[str, float] = {}
        for table, state in reading.tables.items():
            unit = PAST_UNIT if table.kind == "past" else 1
            for name, count in state.cells.items():
                if table.tenant == tenant:
                    sums[name] = sums.get(name, 0) + count / unit
        return sums


def counts(exchange: Exchange, tenant: str = "t") -> dict[str, float]:
    return exchange.snapshot.counts(tenant, HALF_LIFE_S)
