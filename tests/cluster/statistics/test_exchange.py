"""An exchange over a store that fails, lags, forgets and heals; and a thread that runs it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping

import pytest
from statistics_backends import LONG, NOW_US, RedisBackend
from statistics_world import HALF_LIFE_S, HOUR, FaultyStore, World

from cluster.statistics.breaker import LONGEST_PAUSE_S, MAX_FAILURES
from cluster.statistics.exchange import Exchange, ExchangeCounters
from cluster.statistics.exchange_thread import BUSY_SHARE, ExchangeThread
from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.memory import Contents
from cluster.statistics.store import Batch, Reading, Receipt


@pytest.fixture
def world() -> World:
    return World()


def counts(exchange: Exchange, tenant: str = "t") -> dict[str, float]:
    return exchange.snapshot.counts(tenant, HALF_LIFE_S)


def test_what_one_counts_the_other_knows_after_a_few_steps(world: World) -> None:
    first, second = world.exchange(world.store()), world.exchange(world.store())
    first.add("t", {"x": 3})
    second.add("t", {"x": 4, "y": 1})
    for _ in range(3):
        assert first.step()
        assert second.step()
    assert counts(first) == counts(second) == {"x": 7, "y": 1}
    assert world.merged() == {"x": 7, "y": 1}


def test_a_fresh_process_starts_with_all_there_is(world: World) -> None:
    first = world.exchange(world.store())
    for index in range(100):
        first.add(f"t{index}", {"x": 1})
    first.step()
    first.step()
    fresh = world.exchange(world.store())
    assert fresh.snapshot.tenants == []
    fresh.step()
    assert len(fresh.snapshot.tenants) == 100


def test_what_the_store_has_not_is_in_the_snapshot_and_only_once(world: World) -> None:
    store = world.store()
    exchange = world.exchange(store)
    exchange.add("t", {"x": 1})
    exchange.step()
    store.loses = True
    exchange.add("t", {"x": 2, "y": 5})
    assert not exchange.step()
    assert counts(exchange) == {"x": 3, "y": 5}
    store.loses = False
    assert exchange.step()
    assert counts(exchange) == world.merged() == {"x": 3, "y": 5}


def test_alone_a_process_never_reads_its_own_counts_back(world: World) -> None:
    store = world.store()
    exchange = world.exchange(store)
    exchange.step()
    reads: list[int] = []
    read = store.store.read

    class Reader:
        def __getattr__(self, name: str) -> object:
            return getattr(store.store, name)

        def read(self, known: Mapping[Table, int], max_tables: int) -> Reading:
            reading = read(known, max_tables)
            reads.append(len(reading.tables))
            return reading

    alone = world.exchange(Reader())  # type: ignore[arg-type]  # the rest is passed on
    for _ in range(6):
        alone.add("t", {"x": 1})
        alone.step()
    assert sum(reads) == 0
    assert counts(alone) == {"x": 6}


def test_a_store_that_is_away_costs_one_call_a_step_then_next_to_none(world: World) -> None:
    store = world.store()
    exchange = world.exchange(store)
    store.fails = True
    for _ in range(MAX_FAILURES):
        exchange.add("t", {"x": 1})
        before = store.num_calls
        assert not exchange.step()
        assert store.num_calls == before + 1
    assert exchange.counters.is_open
    assert exchange.counters.age_s is None
    before = store.num_calls
    for _ in range(240):
        world.wait(0.25)
        exchange.add("t", {"x": 1})
        exchange.step()
    assert store.num_calls - before <= 60 / (LONGEST_PAUSE_S / 2) + 4
    assert exchange.counters.last_error == "away"
    store.fails = False
    world.wait(LONGEST_PAUSE_S)
    assert exchange.step()
    assert world.merged() == counts(exchange) == {"x": 240 + MAX_FAILURES}
    assert exchange.counters.last_error is None
    assert not exchange.counters.is_open
    world.wait(5.0)
    assert exchange.counters.age_s == pytest.approx(5.0)


@pytest.mark.parametrize("is_busy", [True, False])
def test_after_a_flush_or_roll_back_live_counts_are_exact_again(
    world: World, is_busy: bool
) -> None:
    exchanges = [world.exchange(world.store()) for _ in range(2)]
    expected = 0
    for is_flush in (False, True):
        for exchange in exchanges:
            exchange.add("t", {"x": 3, "y": 1})
            exchange.add("u", {"x": 1})
            exchange.step()
        expected += 3
        kept = world.backend.keep()
        for exchange in exchanges:
            exchange.add("t", {"x": 1})
            exchange.step()
        expected += 1
        world.backend.restore(Contents() if is_flush else kept)
        for _ in range(8):
            world.wait(0.25)
            for exchange in exchanges:
                if is_busy:
                    exchange.add("t", {"z": 1})
                exchange.step()
        for exchange in exchanges * 3:
            exchange.step()
        assert world.merged()["x"] == 2 * expected
        assert world.merged("u")["x"] == expected // 2
        for exchange in exchanges:
            assert counts(exchange) == world.merged()
            assert exchange.counters.writer.num_repairs > 0


def test_one_step_after_a_flush_one_s_own_counts_are_there_again(world: World) -> None:
    exchange = world.exchange(world.store())
    exchange.add("t", {"x": 3})
    exchange.step()
    exchange.step()
    world.backend.restore(Contents())
    exchange.step()
    assert counts(exchange) == world.merged() == {"x": 3}


def test_a_lost_answer_leaves_no_gap_in_what_is_known(world: World) -> None:
    store = world.store()
    exchange = world.exchange(store)
    for number in range(1, 9):
        exchange.add("t", {"x": 1})
        store.loses = number % 3 == 0
        exchange.step()
        assert counts(exchange) == {"x": number}


def test_counts_of_a_long_outage_go_to_the_epoch_that_it_ends_in(world: World) -> None:
    store = world.store()
    exchange = world.exchange(store)
    exchange.add("t", {"x": 1})
    exchange.step()
    store.loses = True
    exchange.add("t", {"x": 1})
    exchange.step()
    store.loses, store.fails = False, True
    exchange.add("t", {"x": 1})
    exchange.step()
    world.wait(2.5 * HOUR.epoch_s)
    store.fails = False
    exchange.step()
    assert world.merged() == {"x": 3}
    assert exchange.counters.writer.num_lost == 0


def test_closed_epochs_move_into_the_past_and_decay(world: World) -> None:
    exchanges = [world.exchange(world.store()) for _ in range(2)]
    for _ in range(4):
        for exchange in exchanges:
            exchange.add("t", {"x": 64})
            exchange.step()
            exchange.step()
        world.wait(HOUR.epoch_s)
    for _ in range(6):
        for exchange in exchanges:
            exchange.step()
    tables = world.memory().read({}, 99).tables
    epoch = HOUR.epoch(world.backend.now_us)
    assert sorted(table.kind for table in tables) == ["live", "past"]
    assert tables[Table("t", epoch - 2 * HOUR.epoch_s, "past")].cells == {
        "x": PAST_UNIT * (128 + 64 + 32)
    }
    assert counts(exchanges[0]) == {"x": 64 + 32 + 16 + 8}
    assert counts(exchanges[0]) == counts(exchanges[1])


def test_writers_that_fell_silent_are_folded_and_may_come_back(world: World) -> None:
    silent, watcher = (world.exchange(world.store()) for _ in range(2))
    silent.add("t", {"x": 5})
    silent.step()
    for _ in range(30):
        world.wait(60)
        watcher.step()
    (table,) = world.memory().read({}, 99).tables
    records = world.memory().read({}, 99).tables[table].writers
    assert [record.is_folded for record in records.values()] == [True]
    silent.add("t", {"x": 1})
    silent.step()
    silent.step()
    assert world.merged() == counts(silent) == {"x": 6}


def test_a_silent_writer_is_watched_anew_after_an_outage(world: World) -> None:
    silent, watcher = world.exchange(world.store()), world.exchange(store := world.store())
    silent.add("t", {"x": 5})
    silent.step()
    for minute in range(40):
        world.wait(60)
        store.fails = minute % 8 >= 6
        watcher.step()
    (state,) = world.memory().read({}, 99).tables.values()
    assert [record.is_folded for record in state.writers.values()] == [False]


def test_one_that_leaves_sends_all_and_lets_go_of_its_totals(world: World) -> None:
    exchange = world.exchange(world.store())
    exchange.add("t", {f"x{index}": 1 for index in range(1200)})
    assert exchange.finish()
    (state,) = world.memory().read({}, 99).tables.values()
    assert len(state.cells) == 1200
    assert all(record.is_folded for record in state.writers.values())


def test_a_reset_is_not_undone_by_those_who_counted_before_it(world: World) -> None:
    exchange = world.exchange(world.store())
    exchange.add("t", {"x": 5})
    exchange.step()
    (table,) = world.memory().read({}, 99).tables
    world.memory().clear(table, {})
    for _ in range(4):
        exchange.add("t", {"y": 1})
        exchange.step()
    assert world.merged() == counts(exchange) == {"y": 4}


def test_buffers_are_bounded(world: World) -> None:
    store = world.store()
    store.fails = True
    exchange = world.exchange(store, max_cells=10)
    for index in range(50):
        exchange.add("t", {f"x{index}": 1, "x0": 1})
    exchange.step()
    assert len(counts(exchange)) == 10
    assert counts(exchange)["x0"] == 50
    assert exchange.counters.writer.num_refused == 40


@pytest.mark.parametrize(
    ("tenant", "counts", "expected"),
    [
        ("t", {"y": 1, "x": 2**60}, "x: 1152921504606846976 is out of range"),
        ("t", {"y": 1, "@w": 1}, "'@w' is no name of a cell"),
        ("t", {"y": 1, "é": 1}, "'é' is no name of a cell"),
        ("t", {"y": 1, "x" * 201: 1}, "is no name of a cell"),
        ("\ud800", {"y": 1}, "is no tenant"),
        ("t" * 201, {"y": 1}, "is no tenant"),
    ],
)
def test_what_no_store_could_hold_is_refused_whole(
    world: World, tenant: str, counts: dict[str, int], expected: str
) -> None:
    exchange = world.exchange(world.store())
    with pytest.raises(ValueError, match=expected):
        exchange.add(tenant, counts)
    exchange.step()
    assert exchange.snapshot.tenants == []


def test_the_caller_does_not_wait_for_a_store_that_blocks(world: World) -> None:
    entered, released = threading.Event(), threading.Event()

    class Blocking(FaultyStore):
        def merge(self, batch: Batch) -> Receipt:
            entered.set()
            assert released.wait(20.0)
            return super().merge(batch)

    exchange = world.exchange(Blocking(world.memory()))
    exchange.add("t", {"x": 1})
    thread = threading.Thread(target=exchange.step)
    thread.start()
    assert entered.wait(20.0)
    exchange.add("t", {"x": 1})
    assert exchange.snapshot.tenants == []
    released.set()
    thread.join()
    exchange.step()
    assert world.merged() == {"x": 2}


def test_a_thread_exchanges_between_two_clients_of_a_server(redis_backend: RedisBackend) -> None:
    def exchange() -> Exchange:
        ids = map(str, itertools.count(time.perf_counter_ns()))
        return Exchange(redis_backend.store(LONG), lambda: next(ids), time.monotonic, lambda: 0.0)

    first, second = exchange(), exchange()
    with ExchangeThread(first, 0.02), ExchangeThread(second, 0.02):
        first.add("t", {"x": 3})
        second.add("t", {"x": 4})
        deadline_s = time.monotonic() + 10
        pause = threading.Event()
        while counts(first) != {"x": 7} or counts(second) != {"x": 7}:
            assert time.monotonic() < deadline_s
            pause.wait(0.01)
        first.add("t", {"x": 1})
    (state,) = redis_backend.store(LONG).read({}, 9).tables.values()
    assert state.cells == {"x": 8}
    assert all(record.is_folded for record in state.writers.values())


def test_a_thread_whose_steps_take_long_makes_fewer_of_them() -> None:
    class Slow:
        counters = ExchangeCounters()
        num_steps = 0

        def step(self) -> bool:
            self.num_steps += 1
            threading.Event().wait(0.05)
            return True

        def finish(self) -> bool:
            return True

    slow = Slow()
    with ExchangeThread(slow, 0.001):
        threading.Event().wait(1.0)
    assert 1 <= slow.num_steps <= 1.0 * BUSY_SHARE / 0.05 * 1.5


def test_the_present_is_the_store_s(world: World) -> None:
    world.wait(3 * HOUR.epoch_s)
    exchange = world.exchange(world.store())
    assert exchange.snapshot.epoch is None
    exchange.step()
    assert exchange.snapshot.epoch == HOUR.epoch(world.backend.now_us) > NOW_US // 1_000_000
