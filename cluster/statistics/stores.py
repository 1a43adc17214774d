"""The stores of all pools in one Redis: that of REDIS_URL, else a private one, kept running."""

from __future__ import annotations

import os
from collections.abc import Mapping

from redis import Redis

from cluster.redis_connection import NoServerError, RedisConnection
from cluster.statistics.drafter_store import DrafterStore
from cluster.statistics.health import StoreHealth, read_health
from cluster.statistics.keys import Pool
from cluster.statistics.redis_store import RedisStore
from cluster.statistics.store import StoreError


class Stores:
    """For any number of threads. Raises UrlError if REDIS_URL cannot be used."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._connection = RedisConnection(environ.get("REDIS_URL"), environ, "statistics")
        self._found: tuple[Redis | None, dict[Pool, RedisStore]] = None, {}

    def find(self, pool: Pool) -> RedisStore:
        """StoreError while there is no server."""
        client = self._client
        owner, stores = self._found
        if owner is not client:
            owner, stores = self._found = client, {}
        if pool not in stores:
            stores[pool] = RedisStore(client, pool)
        return stores[pool]

    def drafters(self) -> DrafterStore:
        """StoreError while there is no server."""
        return DrafterStore(self._client)

    @property
    def _client(self) -> Redis:
        try:
            return self._connection.client
        except NoServerError as error:
            raise StoreError(str(error)) from error

    def health(self) -> StoreHealth:
        """Asks the server; bounded by the client's timeouts."""
        try:
            return read_health(self._connection.client)
        except NoServerError:
            return StoreHealth()

    def close(self) -> None:
        """Ends the private server, its data kept."""
        self._connection.close()
