"""Two exchanges go on counting while their server is killed and started again, or flushed."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from statistics_backends import LONG, POOL, wheel_server

from cluster.embedded_redis import EmbeddedRedis
from cluster.statistics.client import connect
from cluster.statistics.exchange import Exchange, ExchangeSettings
from cluster.statistics.exchange_thread import ExchangeThread
from cluster.statistics.redis_store import RedisStore
from cluster.statistics.store import StoreError

HEALING_S = 5.0
CELLS = [f"s:lookup:{context}:1:r" for context in range(30)]


class Load:
    """Counts without a pause until it is left; `truth` is what it counted."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.exchanges = exchanges
        self.truth: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        turns = itertools.cycle(itertools.product(self.exchanges, CELLS))
        for exchange, cell in turns:
            exchange.add("t", {cell: 1})
            self.truth[cell] += 1
            if self._stopping.wait(0.001):
                return


def exchange(url: str, name: str, timeout_s: float = 0.05) -> Exchange:
    ids = itertools.count()
    store = RedisStore(connect(url, timeout_s), POOL, LONG)
    settings = ExchangeSettings(lifetimes=LONG)
    return Exchange(store, lambda: f"{name}-{next(ids)}", time.monotonic, lambda: 0.5, settings)


def merged(url: str) -> dict[str, int]:
    with connect(url, 5.0) as client:
        try:
            tables = RedisStore(client, POOL, LONG).read({}, 9).tables
        except StoreError:
            return {}
    return {name: count for state in tables.values() for name, count in state.cells.items()}


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline_s, pause = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s
        pause.wait(0.05)


def kill(server: EmbeddedRedis) -> None:
    """As by the kernel, with no time to write anything."""
    with connect(server.url, 5.0) as client:
        os.kill(int(str(client.info("server")["process_id"])), signal.SIGKILL)
    server.__exit__()


@pytest.mark.parametrize("damage", ["kill", "flush"])
def test_after_an_outage_the_store_has_every_count_of_the_living(
    tmp_path: Path, damage: str
) -> None:
    with EmbeddedRedis(tmp_path, wheel_server()) as server:
        url = server.url
        exchanges = [exchange(url, name) for name in "ab"]
        threads = [ExchangeThread(each, 0.05) for each in exchanges]
        load = Load(exchanges)
        with threads[0], threads[1]:
            with load:
                wait_until(lambda: len(merged(url)) == len(CELLS), 20.0)
                if damage == "flush":
                    with connect(url, 5.0) as client:
                        client.flushall()
                else:
                    kill(server)
                    wait_until(lambda: all(e.counters.num_failures for e in exchanges), 20.0)
                    server.__enter__()
                wait_until(lambda: len(merged(url)) == len(CELLS), 20.0)
            wait_until(lambda: merged(url) == load.truth, HEALING_S)
        assert merged(url) == load.truth
        assert all(e.counters.writer.num_lost == 0 for e in exchanges)


def test_a_server_at_its_memory_limit_keeps_the_newest_and_never_fails(tmp_path: Path) -> None:
    names = [f"s:lookup:{context}:{depth}:r" for context in range(20) for depth in range(1, 11)]
    with EmbeddedRedis(tmp_path, wheel_server()) as server, connect(server.url, 5.0) as client:
        limit = int(str(client.info("memory")["used_memory"])) + 500_000
        client.config_set("maxmemory", limit)
        busy = exchange(server.url, "a", timeout_s=5.0)
        for number in range(60):
            busy.add(f"t{number}", dict.fromkeys(names, 1))
            assert busy.step(), busy.counters.last_error
        assert int(str(client.info("memory")["used_memory"])) <= 1.1 * limit
        assert int(str(client.info("stats")["evicted_keys"])) > 0
        newest = busy.snapshot.counts("t59", 1.0)
        assert newest == dict.fromkeys(names, 1)
