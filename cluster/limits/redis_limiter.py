"""The limiter in Redis (6.2 and newer) or Valkey, by its clock: one script for each operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from redis import Redis, RedisError

from cluster.limits.limiter import (
    LEASE_S,
    SEQUENCES_RETRY_S,
    Lease,
    Limit,
    LimiterError,
    Quota,
    Verdict,
)
from cluster.lua_scripts import LuaScripts
from cluster.redis_connection import NoServerError

PREFIX = "hedgerow:limits:"
_REPLICAS = f"{PREFIX}replicas"
_BUCKETS_MS = 24 * 3600 * 1000  # longer than any debt that a request can leave
_LEASE_MS = round(LEASE_S * 1000)


class RedisLimiter:
    """`client` gives the client to use now; see `cluster.redis_connection`."""

    def __init__(self, client: Callable[[], Redis]) -> None:
        self._scripts = LuaScripts(client, Path(__file__).parent, ("admit", "settle", "renew"))

    def admit(self, lease: Lease, quota: Quota, num_tokens: int) -> Verdict:
        most = (quota.requests_per_min, quota.tokens_per_min, quota.max_sequences)
        arguments = [*map(_number, most), num_tokens, _LEASE_MS, _BUCKETS_MS]
        answer = self._run("admit", _keys(lease.tenant), *arguments, *lease.members)
        refused_by, wait_ms, *left = answer
        wait_s = SEQUENCES_RETRY_S if refused_by == "sequences" else wait_ms / 1000
        requests, tokens = (None if number < 0 else number for number in left)
        return Verdict(cast(Limit, refused_by) or None, wait_s, requests, tokens)

    def settle(self, lease: Lease, quota: Quota, num_unused: int) -> None:
        arguments = [_number(quota.tokens_per_min), num_unused, _BUCKETS_MS]
        self._run("settle", _keys(lease.tenant), *arguments, *lease.members)

    def renew(self, replica_id: str, leases: Sequence[Lease]) -> int:
        members: dict[str, list[str]] = {}
        for lease in leases:
            members.setdefault(lease.tenant, []).extend(lease.members)
        for tenant, names in members.items():
            for start in range(0, len(names), 1000):
                self._run("renew", _keys(tenant)[1:], _LEASE_MS, *names[start : start + 1000])
        return int(self._run("renew", [_REPLICAS], _LEASE_MS, replica_id))

    def _run(self, script: str, keys: list[str], *arguments: str | int) -> Any:
        try:
            return self._scripts.run(script, keys, *arguments)
        except (RedisError, OSError, NoServerError) as error:
            raise LimiterError(f"{type(error).__name__}: {error}") from error


def _keys(tenant: str) -> list[str]:
    """Buckets and leases, in one slot."""
    return [f"{PREFIX}{{1:{tenant}}}:{name}" for name in ("buckets", "leases")]


def _number(limit: int | None) -> int:
    return -1 if limit is None else limit
