"""Where tenants are kept: HEDGEROW_TENANTS_REDIS_URL, a Redis of their own that evicts nothing.

For development it may be left out: then it is the Redis of statistics, under names of their own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from redis import Redis

from cluster.embedded_redis import redis_url, state_folder
from cluster.statistics.client import connect

VARIABLE = "HEDGEROW_TENANTS_REDIS_URL"
TIMEOUT_S = 5.0


def tenants_url(environ: Mapping[str, str] = os.environ) -> str | None:
    """None is the private server."""
    return environ.get(VARIABLE) or environ.get("REDIS_URL") or None


@contextlib.contextmanager
def tenants_client(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[Redis, str]]:
    """A patient client, for operators, and its URL. Raises UrlError or EmbeddedRedisError."""
    chosen = {**environ, "REDIS_URL": tenants_url(environ) or ""}
    with redis_url(state_folder(environ), chosen) as url:
        client = connect(url, TIMEOUT_S)
        try:
            yield client, url
        finally:
            client.close()
