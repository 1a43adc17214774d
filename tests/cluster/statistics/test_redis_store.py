"""What only a real server can do: damaged keys, other versions, evictions, lost scripts."""

from __future__ import annotations

import time

import pytest
from statistics_backends import LONG, POOL, SHORT, RedisBackend

from cluster.statistics.client import connect
from cluster.statistics.keys import PREFIX, Pool, Table, key
from cluster.statistics.redis_store import RedisStore, pools
from cluster.statistics.store import (
    MAX_CELLS,
    Batch,
    Fold,
    Receipt,
    Status,
    StoreError,
    TableState,
    WriterRecord,
)


@pytest.fixture
def store(redis_backend: RedisBackend) -> RedisStore:
    return redis_backend.store(LONG)


@pytest.fixture
def table(store: RedisStore) -> Table:
    return Table("t", LONG.epoch(store.read({}, 0).now_us))


def send(store: RedisStore, table: Table, base: int, sequence: int, **totals: int) -> Receipt:
    return store.merge(Batch(table, "a", base, sequence, totals))


@pytest.mark.parametrize("damage", ["set x 1", "rpush x 1", "del x", "hset x c nonsense"])
def test_a_damaged_table_starts_anew(
    redis_backend: RedisBackend, store: RedisStore, table: Table, damage: str
) -> None:
    send(store, table, 0, 1, c=5, d=1)
    name = key(POOL, table.name)
    if "hset" not in damage:
        redis_backend.client.delete(name)
    redis_backend.client.execute_command(*damage.replace(" x", f" {name}").split(" "))
    assert store.read({}, 9).tables[table].cells.get("c") is None
    receipt = send(store, table, 1, 2, c=6)
    assert (receipt.status, receipt.stored) == (Status.BEHIND, 0)
    assert send(store, table, 0, 3, c=6, d=1).status is Status.APPLIED
    assert store.read({}, 9).tables[table].cells == {"c": 6, "d": 1}


@pytest.mark.parametrize("damage", ["set", "evict", "unreadable"])
def test_a_writer_whose_totals_are_damaged_is_folded(
    redis_backend: RedisBackend, store: RedisStore, table: Table, damage: str
) -> None:
    send(store, table, 0, 1, c=5)
    name = key(POOL, "writer", "a", table.name)
    if damage == "unreadable":
        redis_backend.client.hset(name, "c", "?")
    else:
        redis_backend.client.delete(name)
    if damage == "set":
        redis_backend.client.set(name, "1")
    receipt = send(store, table, 1, 2, c=6)
    assert (receipt.status, receipt.stored) == (Status.FOLDED, 1)
    assert store.read({}, 9).tables[table] == TableState({"c": 5}, {"a": WriterRecord(1, True)})


@pytest.mark.parametrize("value", ["?", "f?", "-1"])
def test_a_record_that_cannot_be_read_rebuilds_the_table(
    redis_backend: RedisBackend, store: RedisStore, table: Table, value: str
) -> None:
    send(store, table, 0, 1, c=5)
    redis_backend.client.hset(key(POOL, table.name), "@a", value)
    assert send(store, table, 1, 2, c=6).status is Status.BEHIND
    assert send(store, table, 0, 3, c=6).status is Status.APPLIED
    assert store.read({}, 9).tables[table].cells == {"c": 6}


def test_a_damaged_index_comes_back_with_the_next_merge(
    redis_backend: RedisBackend, store: RedisStore, table: Table
) -> None:
    send(store, table, 0, 1, c=5)
    redis_backend.client.set(key(POOL, "index"), "1")
    assert store.read({}, 9).versions == {}
    assert send(store, table, 1, 2, c=6).status is Status.APPLIED
    assert store.read({}, 9).tables[table].cells == {"c": 6}


def test_names_and_cells_of_other_versions_are_passed_over_and_kept(
    redis_backend: RedisBackend, store: RedisStore, table: Table
) -> None:
    send(store, table, 0, 1, c=5)
    newer = f"{PREFIX}{{99:model:drafters}}:index"
    redis_backend.client.hset(newer, "what:is:this", "1")
    redis_backend.client.hset(key(POOL, "index"), "frozen:1:t", "7")
    redis_backend.client.hset(key(POOL, table.name), "c2", "1.5e3")
    reading = store.read({}, 9)
    assert set(reading.versions) == {table}
    assert reading.tables[table].cells == {"c": 5}
    send(store, table, 1, 2, c=6)
    assert redis_backend.client.hgetall(newer) == {"what:is:this": "1"}
    assert redis_backend.client.hget(key(POOL, table.name), "c2") == "1.5e3"
    assert pools(redis_backend.client) == [(1, POOL), (99, POOL)]


def test_what_cannot_be_read_does_not_keep_a_closed_table_for_ever(
    redis_backend: RedisBackend, store: RedisStore, table: Table
) -> None:
    send(store, table, 0, 1, c=5)
    redis_backend.client.hset(key(POOL, table.name), "c2", "?")
    past = Table("t", table.epoch, "past")
    redis_backend.store(SHORT).fold(Fold(table, past, 1.0, ("c",), {"a": 1}, is_last=True))
    assert store.read({}, 9).tables == {past: TableState({"c": 5})}


def test_pools_share_nothing(redis_backend: RedisBackend, store: RedisStore, table: Table) -> None:
    other = RedisStore(redis_backend.client, Pool("model", "other"), LONG)
    send(store, table, 0, 1, c=5)
    assert other.read({}, 9).versions == {}


def test_scripts_that_the_server_forgot_are_sent_again(
    redis_backend: RedisBackend, store: RedisStore, table: Table
) -> None:
    send(store, table, 0, 1, c=5)
    redis_backend.client.script_flush()
    assert send(store, table, 1, 2, c=6).status is Status.APPLIED


def test_every_key_expires(redis_backend: RedisBackend, store: RedisStore, table: Table) -> None:
    send(store, table, 0, 1, c=5)
    store.fold(Fold(table, writers={"b": 1}))
    keys = redis_backend.client.keys()
    assert isinstance(keys, list)
    assert len(keys) == 3
    times = [redis_backend.client.ttl(name) for name in keys]
    assert all(0 < int(str(ttl)) <= LONG.retention_s for ttl in times), times
    store.clear(table, {})
    assert int(str(redis_backend.client.ttl(key(POOL, table.name)))) > 0


def test_a_server_that_refuses_or_is_away_is_a_store_error(
    redis_backend: RedisBackend, store: RedisStore, table: Table
) -> None:
    client = redis_backend.client
    client.acl_setuser("reader", enabled=True, passwords=["+secret"], commands=["+hgetall"])
    options = client.connection_pool.connection_kwargs
    limited = connect(f"unix://reader:secret@{options['path']}", 1.0)
    with pytest.raises(StoreError, match=r"NoPermission|NOPERM"):
        send(RedisStore(limited, POOL, LONG), table, 0, 1, c=5)
    limited.close()
    away = RedisStore(connect("unix:///nowhere/at/all.sock"), POOL, LONG)
    with pytest.raises(StoreError, match="ConnectionError"):
        away.read({}, 9)


def test_a_server_without_memory_refuses_and_loses_nothing(
    redis_backend: RedisBackend, store: RedisStore, table: Table
) -> None:
    send(store, table, 0, 1, c=5)
    client = redis_backend.client
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreError, match=r"OOM|OutOfMemory"):
            send(store, table, 1, 2, c=6)
    finally:
        client.config_set("maxmemory", "0")
    assert send(store, table, 1, 2, c=6).status is Status.APPLIED
    assert store.read({}, 9).tables[table].cells == {"c": 6}


def test_scripts_hold_the_server_for_milliseconds(
    redis_backend: RedisBackend, store: RedisStore, table: Table
) -> None:
    """The best of several: what others take of this machine is not the script's."""
    names = [f"s:lookup:{index}:16:r" for index in range(MAX_CELLS)]
    taken_s = []
    for sequence in range(1, 8):
        start_s = time.perf_counter()
        send(store, table, sequence - 1, sequence, **dict.fromkeys(names, sequence))
        taken_s.append(time.perf_counter() - start_s)
    assert min(taken_s) < 0.02, taken_s
    fold = Fold(table, Table("t", table.epoch, "past"), 256.0, tuple(names), {"a": 7}, True)
    start_s = time.perf_counter()
    redis_backend.store(SHORT).fold(fold)
    assert time.perf_counter() - start_s < 0.1
