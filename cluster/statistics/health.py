"""How the Redis of the statistics is: whether it answers, and how full it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis, RedisError


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """Without an answer all but `is_up` are 0. `max_memory_bytes` 0 means no limit."""

    is_up: bool = False
    used_memory_bytes: int = 0
    max_memory_bytes: int = 0
    num_evicted_keys: int = 0
    num_keys: int = 0


def read_health(client: Redis) -> StoreHealth:
    """Never raises: a server that does not answer is not up."""
    try:
        found: dict[str, Any] = client.info()
        return StoreHealth(
            True,
            int(found.get("used_memory", 0)),
            int(found.get("maxmemory", 0)),
            int(found.get("evicted_keys", 0)),
            sum(int(value["keys"]) for key, value in found.items() if key.startswith("db")),
        )
    except (RedisError, OSError, ValueError, TypeError, KeyError):
        return StoreHealth()
