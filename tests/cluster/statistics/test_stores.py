"""A private server that is kept running, and a URL that is refused at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from statistics_backends import POOL

from cluster.embedded_redis import EmbeddedRedis
from cluster.statistics.client import UrlError, connect
from cluster.statistics.health import StoreHealth
from cluster.statistics.keys import Table
from cluster.statistics.store import Batch, Lifetimes, StoreError
from cluster.statistics.stores import Stores

START_S = 20.0


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    stores = Stores({"HEDGEROW_STATE": str(tmp_path)})
    yield stores
    stores.close()


def epoch(stores: Stores) -> int:
    """The present one, as soon as there is a server."""
    deadline_s, pause = time.monotonic() + START_S, threading.Event()
    while True:
        try:
            return Lifetimes().epoch(stores.find(POOL).read({}, 0).now_us)
        except StoreError:
            assert time.monotonic() < deadline_s
            pause.wait(0.05)


def test_a_private_server_that_is_killed_is_started_again_with_its_data(
    stores: Stores, tmp_path: Path
) -> None:
    table = Table("t", epoch(stores))
    stores.find(POOL).merge(Batch(table, "w", 0, 1, {"x": 5}))
    with connect(EmbeddedRedis(tmp_path).url, 5.0) as client:
        before = int(str(client.info("server")["process_id"]))
        client.config_set("appendfsync", "always")
        stores.find(POOL).merge(Batch(table, "w", 1, 2, {"x": 6}))
        os.kill(before, signal.SIGKILL)
    deadline_s, pause = time.monotonic() + START_S, threading.Event()
    while not pause.wait(0.05):
        assert time.monotonic() < deadline_s
        try:
            found = stores.find(POOL).read({}, 9).tables
        except StoreError:
            continue
        break
    assert {t: state.cells for t, state in found.items()} == {table: {"x": 6}}
    with connect(EmbeddedRedis(tmp_path).url, 5.0) as client:
        assert int(str(client.info("server")["process_id"])) != before


def test_the_server_ends_with_its_stores(tmp_path: Path) -> None:
    stores = Stores({"HEDGEROW_STATE": str(tmp_path)})
    epoch(stores)
    stores.close()
    assert not EmbeddedRedis(tmp_path).is_up


def test_a_url_that_cannot_be_used_is_refused_at_the_start() -> None:
    with pytest.raises(UrlError, match="'http' is no scheme"):
        Stores({"REDIS_URL": "http://somewhere"})


def test_a_state_folder_that_cannot_be_made_is_an_outage_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stores = Stores({"HEDGEROW_STATE": str(tmp_path / "file" / "state")})
    with pytest.raises(StoreError):
        stores.find(POOL)
    stores.close()


def test_how_the_server_is_can_be_asked(stores: Stores) -> None:
    assert epoch(stores) > 0
    stores.find(POOL).merge(Batch(Table("t", epoch(stores)), "w", 0, 1, {"x": 5}))
    health = stores.health()
    assert health.is_up
    assert 0 < health.used_memory_bytes < health.max_memory_bytes
    assert health.num_keys > 0
    assert health.num_evicted_keys == 0


def test_a_server_that_is_away_is_not_up() -> None:
    stores = Stores({"REDIS_URL": "redis://127.0.0.1:1"})
    assert stores.health() == StoreHealth()
    stores.close()
