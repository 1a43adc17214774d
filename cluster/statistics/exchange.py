"""Keeps this process and the store in step, a little at a time: flush, read, fold.

`add` and `snapshot` are for the caller and wait for nobody. `step` is for one thread of its own:
it talks to the store, at most one call of it fails, and no call is repeated before the next step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cluster.statistics.breaker import Breaker
from cluster.statistics.janitor import Janitor
from cluster.statistics.replica import Replica, Snapshot
from cluster.statistics.store import Fold, Lifetimes, StatisticsStore, StoreError
from cluster.statistics.writer import Tally, Writer

FOLD_SPREAD_S = 300.0
"""Processes fold at moments this far apart, so that mostly one does it and the others see it."""


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """`max_batches`, `max_reads` and `max_folds` bound what one step does, `max_tables` a read.

    `silence_s` after its last change a writer's totals are let go of.
    """

    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    half_life_s: float = 3 * 86400.0
    max_batches: int = 64
    max_reads: int = 16
    max_tables: int = 32
    max_folds: int = 4
    silence_s: float = 900.0
    max_cells: int = 1_000_000


@dataclass(frozen=True, slots=True)
class ExchangeCounters:
    """`writer` is what became of what was counted here; `last_error` is None while all is well.

    `age_s` is how old what is known of the store is, None if nothing ever was; `is_open` says that
    the breaker keeps away from it.
    """

    writer: Tally = field(default_factory=Tally)
    num_failures: int = 0
    num_histories_lost: int = 0
    last_error: str | None = None
    age_s: float | None = None
    is_open: bool = False


class Exchange:
    """`clock` is monotonic, in seconds; `uniform` in [0, 1); `new_id` gives unused writer ids."""

    def __init__(
        self,
        store: StatisticsStore,
        new_id: Callable[[], str],
        clock: Callable[[], float],
        uniform: Callable[[], float],
        settings: ExchangeSettings | None = None,
    ) -> None:
        self._settings = settings or ExchangeSettings()
        lifetimes, half_life_s = self._settings.lifetimes, self._settings.half_life_s
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()  # of the writer, held for computing alone
        self._writer = Writer(new_id, lifetimes, self._settings.max_cells)
        self._replica = Replica()
        self._breaker = Breaker(clock, uniform)
        self._janitor = Janitor(lifetimes, half_life_s, self._settings.silence_s * (1 + uniform()))
        self._fold_lag_us = int(uniform() * min(FOLD_SPREAD_S, lifetimes.epoch_s / 4) * 1_000_000)
        self._told: tuple[int, float] | None = None
        self._num_failures = 0
        self._last_error: str | None = None
        self._snapshot = Snapshot()

    @property
    def snapshot(self) -> Snapshot:
        """As of the end of the last step."""
        return self._snapshot

    @property
    def counters(self) -> ExchangeCounters:
        lost = self._replica.num_histories_lost
        told = self._told
        return ExchangeCounters(
            replace(self._writer.tally),
            self._num_failures,
            lost,
            self._last_error,
            None if told is None else self._clock() - told[1],
            self._breaker.is_open,
        )

    def add(self, tenant: str, counts: Mapping[str, int]) -> None:
        """Counts more in a tenant's cells; ValueError on a name or number out of range."""
        with self._lock:
            self._writer.add(tenant, counts)

    def step(self) -> bool:
        """Whether the store was reached; while the breaker is open it is not tried."""
        is_well = not self._breaker.is_open and self._guarded(self._exchange)
        with self._lock:
            own = self._writer.unacknowledged
        tables = {table: state.cells for table, state in self._replica.states.items()}
        self._snapshot = Snapshot(self._epoch, tables, own)
        return is_well

    def finish(self) -> bool:
        """Sends what is left and lets go of our totals; whether the store has it all now."""
        return self._guarded(self._leave)

    def _guarded(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except StoreError as error:
            self._num_failures += 1
            self._last_error = str(error)
            self._breaker.fail()
            self._janitor.forget()
            return False
        self._last_error = None
        self._breaker.succeed()
        return True

    def _exchange(self) -> None:
        if self._told is None:
            self._read()
        max_batches = self._settings.max_batches
        self._flush(max_batches)
        self._read()
        if not self._flush(max_batches):  # of what was found to be lost
            self._read()
        for _ in range(self._settings.max_folds):
            if not self._fold():
                break

    def _flush(self, max_batches: int) -> bool:
        """Whether it is known what the store has now, without reading."""
        is_certain = True
        for _ in range(max_batches):
            with self._lock:
                batch = self._writer.next_batch(self._now_us)
            if batch is None:
                break
            receipt = self._store.merge(batch)
            self._tell(receipt.now_us)
            with self._lock:
                changes = self._writer.settle(receipt)
            self._replica.merged(batch, receipt, changes)
            is_certain = is_certain and changes is not None
        return is_certain

    def _read(self) -> None:
        """Everything that has changed, at the start all there is."""
        for _ in range(self._settings.max_reads):
            reading = self._store.read(self._replica.known, self._settings.max_tables)
            self._tell(reading.now_us)
            self._replica.update(reading)
            with self._lock:
                self._writer.check(reading)
            if len(reading.tables) < self._settings.max_tables:
                return

    def _fold(self) -> bool:
        now_us = self._now_us - self._fold_lag_us
        fold = self._janitor.next_fold(self._replica.states, now_us, self._clock())
        if fold is not None:
            self._store.fold(fold)
            self._read()
        return fold is not None

    def _leave(self) -> None:
        if self._told is None:
            self._read()
        num_batches = 1 + self._writer.num_cells  # no batch is empty
        self._flush(num_batches)
        for segment in self._writer.segments:
            self._store.fold(Fold(segment.table, writers={segment.writer: segment.sequence}))

    def _tell(self, now_us: int) -> None:
        self._told = now_us, self._clock()

    @property
    def _now_us(self) -> int:
        """The store's time, as far as it was told."""
        assert self._told is not None
        now_us, at_s = self._told
        return now_us + int((self._clock() - at_s) * 1_000_000)

    @property
    def _epoch(self) -> int | None:
        return None if self._told is None else self._settings.lifetimes.epoch(self._now_us)
