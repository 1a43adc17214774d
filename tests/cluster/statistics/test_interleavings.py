"""Whatever happens between writers and the store, its counts are those of a serial run, exactly.

Four writers, two tenants, two epochs; batches are lost, doubled, delayed and put out of order,
their answers lost; writers restart; the store is rolled back (never forward to what was undone),
flushed and folded.
HEDGEROW_EXAMPLES sets the number of runs on each store.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from statistics_backends import LONG, NOW_US, SHORT, Backend, MemoryBackend

from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.store import Batch, Fold, Receipt, Status
from cluster.statistics.writer import Segment, Writer

NUM_WRITERS = 4
TENANTS = ("a", "b:{}")
CELLS = tuple(f"s:d:0:{depth}:r" for depth in range(1, 4))
NUM_EXAMPLES = int(os.environ.get("HEDGEROW_EXAMPLES", "150"))

Totals = Mapping[tuple[Table, str], tuple[int, Mapping[str, int]]]
"""By table and writer id, the sequence number and the totals that the store ought to be at."""

EVENTS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 3), st.integers(0, 5), st.integers(-3, 2**33)),
    st.tuples(st.just("send"), st.integers(0, 3), st.sampled_from([0, 0, 0, 1, 2]), st.just(0)),
    st.tuples(st.just("replay"), st.integers(0, 40), st.just(0), st.just(0)),
    st.tuples(
        st.sampled_from(["restart", "keep", "roll back", "flush", "fold", "archive", "tick"]),
        st.integers(0, 7),
        st.just(0),
        st.just(0),
    ),
)


class Run:
    """`truth` is what was added to each writer that still lives."""

    def __init__(self, backend: Backend) -> None:
        backend.flush()
        self.backend = backend
        self.store = backend.store(LONG)
        self.closing_store = backend.store(SHORT)
        now_us = self.store.read({}, 0).now_us
        self.now_us = now_us - LONG.epoch_s * 1_000_000
        self.ids = itertools.count()
        self.writers = [self.new_writer() for _ in range(NUM_WRITERS)]
        self.truth: list[Counter[tuple[str, str]]] = [Counter() for _ in self.writers]
        self.sent: list[Batch] = []
        self.totals: Totals = {}
        self.kept: list[tuple[object, Totals]] = [(backend.keep(), {})]
        self.closed: set[int] = set()

    def new_writer(self) -> Writer:
        return Writer(lambda: str(next(self.ids)), LONG)

    def do(self, name: str, first: int, second: int, number: int) -> None:
        match name:
            case "add":
                tenant, cell = TENANTS[second % 2], CELLS[second % 3]
                self.writers[first].add(tenant, {cell: number})
                self.truth[first][tenant, cell] += number
            case "send":
                self.send(first, is_lost=second == 1, is_answer_lost=second == 2)
            case "replay" if self.sent:
                self.deliver(self.sent[-1 - first % len(self.sent)])
            case "restart":
                self.writers[first % NUM_WRITERS] = self.new_writer()
                self.truth[first % NUM_WRITERS] = Counter()
            case "keep":
                self.kept.append((self.backend.keep(), dict(self.totals)))
            case "roll back":
                kept, totals = self.kept[first % len(self.kept)]
                self.backend.restore(kept)
                self.totals = dict(totals)
                del self.kept[first % len(self.kept) + 1 :]
            case "flush":
                self.backend.flush()
                self.totals = {}
                del self.kept[1:]
            case "fold":
                self.fold(first)
            case "archive":
                self.archive()
            case "tick":
                self.now_us = self.store.read({}, 0).now_us

    def send(self, index: int, is_lost: bool = False, is_answer_lost: bool = False) -> None:
        batch = self.writers[index].next_batch(self.now_us)
        if batch is None:
            return
        self.sent.append(batch)
        if not is_lost:
            receipt = self.deliver(batch)
            if not is_answer_lost:
                self.writers[index].settle(receipt)

    def deliver(self, batch: Batch) -> Receipt:
        is_closed = batch.table.epoch in self.closed
        receipt = (self.closing_store if is_closed else self.store).merge(batch)
        key = batch.table, batch.writer
        sequence, totals = self.totals.get(key, (0, {}))
        assert receipt.stored == sequence
        if receipt.status is Status.APPLIED:
            self.totals = {**self.totals, key: (batch.sequence, {**totals, **batch.totals})}
        return receipt

    def fold(self, index: int) -> None:
        """Folds writers that are dead, or of which the store has what it acknowledged.

        The janitor's silence sees to that: it is far longer than it takes to repair.
        """
        states = self.store.read({}, 100).tables
        live = sorted(table for table in states if table.kind == "live")
        if live:
            table = live[index % len(live)]
            records = states[table].writers.items()
            sound = {name: each.sequence for name, each in records if not self.is_unrepaired(name)}
            self.store.fold(Fold(table, writers=sound))

    def archive(self) -> None:
        """The first epoch closes and moves into the past, unless somebody is busy with it."""
        tables = self.store.read({}, 100).tables
        epoch = LONG.epoch(self.store.read({}, 0).now_us) - LONG.epoch_s
        segments = [(w, s) for w in self.writers for s in w.segments if s.table.epoch == epoch]
        if any(w.in_flight is not None or self.is_unrepaired(s.writer) for w, s in segments):
            return
        self.do("tick", 0, 0, 0)
        self.closed.add(epoch)
        for table in [table for table in tables if table.epoch == epoch and table.kind == "live"]:
            past, state = Table(table.tenant, epoch, "past"), tables[table]
            records = {name: record.sequence for name, record in state.writers.items()}
            cells = tuple(sorted(state.cells))
            self.closing_store.fold(Fold(table, past, float(PAST_UNIT), cells, records, True))
        for writer, truth in zip(self.writers, self.truth, strict=True):
            for segment in writer.drop(epoch):
                truth.subtract({(segment.table.tenant, c): n for c, n in segment.totals.items()})

    def is_unrepaired(self, name: str) -> bool:
        """Whether the store has other totals of a living writer than it acknowledged."""
        for writer in self.writers:
            batch = writer.in_flight
            for segment in writer.segments:
                if segment.writer == name:
                    known = {segment.sequence}
                    known |= {batch.sequence} if batch and batch.writer == name else set()
                    return bool(segment.again) or self.stored(segment) not in known
        return False

    def stored(self, segment: Segment) -> int:
        return self.totals.get((segment.table, segment.writer), (0, {}))[0]

    def heal(self) -> None:
        """The network and the store are well again; nobody counts more."""
        for _ in range(20):
            for index in range(NUM_WRITERS):
                while not self.writers[index].is_idle():
                    self.send(index)
            reading = self.store.read({}, 100)
            for writer in self.writers:
                writer.check(reading)
            if all(writer.is_idle() for writer in self.writers):
                return
        raise AssertionError("the writers never come to rest")

    def check_merged(self) -> None:
        """The store's cells are the sum of its writers' totals."""
        expected: Counter[tuple[str, str]] = Counter()
        for (table, _), (_, totals) in self.totals.items():
            for name, total in totals.items():
                expected[table.tenant, name] += total * PAST_UNIT
        merged: Counter[tuple[str, str]] = Counter()
        for table, state in self.store.read({}, 100).tables.items():
            for name, count in state.cells.items():
                unit = PAST_UNIT if table.kind == "live" else 1
                merged[table.tenant, name] += count * unit
        assert without_zeros(merged) == without_zeros(expected)

    def check_writers(self) -> None:
        """The store has of each living writer what was added to it, all of it, and nothing else."""
        for writer, truth in zip(self.writers, self.truth, strict=True):
            found: Counter[tuple[str, str]] = Counter()
            for segment in writer.segments:
                _, totals = self.totals.get((segment.table, segment.writer), (0, {}))
                for name, total in totals.items():
                    found[segment.table.tenant, name] += total
            assert without_zeros(found) == without_zeros(truth)
            assert writer.tally.num_lost == writer.tally.num_refused == 0


def without_zeros(counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    return {key: count for key, count in counts.items() if count}


@settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize="HEDGEROW_EXAMPLES" not in os.environ,
)
@given(events=st.lists(EVENTS, min_size=20, max_size=100))
def test_merged_counts_are_those_of_a_serial_run(
    shared_backend: Backend, events: list[tuple[str, int, int, int]]
) -> None:
    run = Run(shared_backend)
    for event in events:
        run.do(*event)
    run.check_merged()
    run.heal()
    run.check_merged()
    run.check_writers()


def test_the_run_itself_is_sound() -> None:
    """A batch that is applied twice would be found."""
    run = Run(MemoryBackend())
    run.do("add", 0, 0, 5)
    run.do("send", 0, 0, 0)
    run.check_merged()
    assert run.now_us < NOW_US
    (table,) = run.store.read({}, 9).tables
    run.store.merge(Batch(table, "somebody", 0, 1, {CELLS[0]: 5}))
    try:
        run.check_merged()
    except AssertionError:
        return
    raise AssertionError("five counts too many were not found")
