"""The stores of all pools in one Redis: that of REDIS_URL, else a private one, kept running."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from redis import Redis, RedisError

from cluster.embedded_redis import EmbeddedRedis, EmbeddedRedisError, state_folder
from cluster.statistics.client import connect
from cluster.statistics.health import StoreHealth, read_health
from cluster.statistics.keys import Pool
from cluster.statistics.redis_store import RedisStore
from cluster.statistics.store import StoreError

logger = logging.getLogger(__name__)

CHECK_S = 0.5
RETRY_S = 5.0


class Stores:
    """For any number of threads. Raises UrlError if REDIS_URL cannot be used.

    A private server that ends, or cannot be started, is started again by a thread of this.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._connected: tuple[Redis, dict[Pool, RedisStore]] | None = None
        self._reason = "the private server is starting"
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        url = environ.get("REDIS_URL")
        if url:
            self._connected = connect(url), {}
        else:
            folder = state_folder(environ)
            self._keeper = threading.Thread(target=self._keep, args=(folder,), daemon=True)
            self._keeper.start()

    def find(self, pool: Pool) -> RedisStore:
        """StoreError while there is no server."""
        connected = self._connected
        if connected is None:
            raise StoreError(self._reason)
        client, stores = connected
        if pool not in stores:
            stores[pool] = RedisStore(client, pool)
        return stores[pool]

    def health(self) -> StoreHealth:
        """Asks the server; bounded by the client's timeouts."""
        connected = self._connected
        return StoreHealth() if connected is None else read_health(connected[0])

    def close(self) -> None:
        """Ends the private server, its data kept."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join()

    def _keep(self, folder: Path) -> None:
        while not self._stopping.is_set():
            try:
                with EmbeddedRedis(folder) as server:
                    self._connected = connect(server.url), {}
                    while server.is_up and not self._stopping.wait(CHECK_S):
                        pass
                    self._connected, reason = None, "the private server has ended"
                pause_s = 0.0
            except (EmbeddedRedisError, RedisError, OSError) as error:
                reason, pause_s = str(error), RETRY_S
            if reason != self._reason and not self._stopping.is_set():
                logger.warning("statistics: %s", reason)
            self._reason = reason
            self._stopping.wait(pause_s)
