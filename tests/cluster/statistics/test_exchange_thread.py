"""An exchange's thread: nobody waits for it, and it takes its share of the time."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from statistics_backends import LONG, RedisBackend
from statistics_world import FaultyStore, World, counts

from cluster.statistics.exchange import Exchange, ExchangeCounters
from cluster.statistics.exchange_thread import BUSY_SHARE, ExchangeThread, pause_between_steps_s
from cluster.statistics.store import Batch, Receipt


def test_one_long_step_among_short_ones_delays_nothing() -> None:
    assert pause_between_steps_s(0.25, 0.0, 3.0) == 0.25
    assert pause_between_steps_s(0.25, 3.0, 0.01) == 0.25


def test_long_steps_take_their_share_of_the_time_and_no_more() -> None:
    pause_s = pause_between_steps_s(0.25, 0.5, 0.4)
    assert 0.4 / (0.4 + pause_s) == pytest.approx(BUSY_SHARE)


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
