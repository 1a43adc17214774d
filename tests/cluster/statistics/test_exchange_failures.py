"""An exchange over a store that fails, lags, forgets and heals."""

from __future__ import annotations

import pytest
from statistics_world import HOUR, World, counts

from cluster.statistics.breaker import LONGEST_PAUSE_S, MAX_FAILURES
from cluster.statistics.memory import Contents


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
