"""A private Redis whose work is watched: calls and their times, processor time, memory."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.embedded_redis import EmbeddedRedis
from cluster.statistics.client import connect
from cluster.statistics.exchange import Exchange
from cluster.statistics.keys import Pool
from cluster.statistics.redis_store import RedisStore
from cluster.statistics.store import Lifetimes

POOL = Pool("model", "drafters")
CLOSING = Lifetimes(epoch_s=1)
"""To a store with these every table of the usual epochs is closed, or soon will be."""


class Server:
    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = connect(url, 10.0)
        self._ids = itertools.count()
        self._client.config_set("slowlog-max-len", 100_000)
        self.store = RedisStore(self._client, POOL)
        self.closing_store = RedisStore(self._client, POOL, CLOSING)

    @property
    def version(self) -> str:
        info = self._client.info("server")
        name = info.get("server_name", "redis")
        return f"{name} {info.get(f'{name}_version', info['redis_version'])}"

    @property
    def epoch(self) -> int:
        """The present one: this machine's clock is the server's."""
        return Lifetimes().epoch(time.time_ns() // 1000)

    @property
    def used_bytes(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    @property
    def busy_s(self) -> float:
        """Processor time so far."""
        cpu = self._client.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    @property
    def num_calls(self) -> int:
        """As clients send them: what a script does counts as one, a pipeline too."""
        return int(self._client.info("stats")["total_reads_processed"])

    def flush(self) -> None:
        self._client.flushall()

    def connection(self) -> RedisStore:
        """The store as one router more has it."""
        return RedisStore(connect(self._url, 1.0), POOL)

    def exchange(self, connection: RedisStore | None = None) -> Exchange:
        """A target's, over a connection of its own if none is given."""
        store = connection or self.connection()
        return Exchange(store, lambda: str(next(self._ids)), time.monotonic, lambda: 0.5)

    @contextmanager
    def watched(self, command: str, part: str = "") -> Iterator[list[float]]:
        """The server's own milliseconds of every such call inside it, whose words hold `part`."""
        times: list[float] = []
        self._client.config_set("slowlog-log-slower-than", 0)
        self._client.slowlog_reset()
        yield times
        self._client.config_set("slowlog-log-slower-than", -1)
        for entry in self._client.slowlog_get(100_000):
            words = entry["command"].decode(errors="replace")
            if words.lower().startswith(command) and part in words:
                times.append(entry["duration"] / 1e3)
        assert times, f"no call of {command}"

    def close(self) -> None:
        self._client.close()


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    with EmbeddedRedis(folder, max_memory_mb=1024) as embedded:
        server = Server(embedded.url)
        yield server
        server.close()
