"""Stores of tenants under test, in memory and on real servers, with time that can be moved on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from redis import Redis
from statistics_backends import server

from cluster.limits.limiter import Limiter
from cluster.limits.memory import MemoryLimiter
from cluster.limits.redis_limiter import RedisLimiter
from cluster.limits.redis_usage import RedisUsage
from cluster.limits.usage import MemoryUsage, UsageStore
from cluster.statistics.client import connect
from cluster.tenants.memory import MemoryTenants
from cluster.tenants.redis_store import RedisTenants


class Backend(Protocol):
    tenants: Any
    limiter: Limiter
    usage: UsageStore

    def advance(self, seconds: float) -> None: ...

    def flush(self) -> None: ...


class MemoryBackend:
    def __init__(self) -> None:
        self._now_s = 1000.0
        self.flush()

    def advance(self, seconds: float) -> None:
        self._now_s += seconds

    def flush(self) -> None:
        self.tenants = MemoryTenants(lambda: self._now_s)
        self.limiter: Limiter = MemoryLimiter(lambda: self._now_s)
        self.usage: UsageStore = MemoryUsage()


class RedisBackend:
    """Moves time on by taking it from every time to live, and from every time that is stored."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.tenants = RedisTenants(lambda: client)
        self.limiter: Limiter = RedisLimiter(lambda: client)
        self.usage: UsageStore = RedisUsage(lambda: client)

    def advance(self, seconds: float) -> None:
        for name in self.client.scan_iter("hedgerow:*"):
            kind = self.client.type(name)
            if kind == "zset":
                members: Any = self.client.zrange(name, 0, -1, withscores=True)
                for member, at in members:
                    self.client.zadd(name, {member: at - seconds * 1000})
            elif kind == "hash":
                fields: Any = self.client.hgetall(name)
                for field in [field for field in fields if field.endswith("_at")]:
                    self.client.hset(name, field, str(float(fields[field]) - seconds * 1000))
            left_ms = int(str(self.client.pttl(name)))
            if left_ms >= 0:
                self.client.pexpire(name, max(0, left_ms - int(seconds * 1000)))

    def flush(self) -> None:
        self.client.flushall()


@contextmanager
def backend(name: str, folder: Path) -> Iterator[Backend]:
    if name == "memory":
        yield MemoryBackend()
        return
    with server(name, folder) as running, connect(running.url, 5.0) as client:
        yield RedisBackend(client)
