"""A limiter in this process: what a replica does without Redis, and the reference for scripts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.limits.limiter import LEASE_S, SEQUENCES_RETRY_S, Lease, Limit, Quota, Verdict

MINUTE_S = 60.0


@dataclass(slots=True)
class Bucket:
    """`level` was there at `at_s`; below zero it is owed."""

    level: float = math.inf
    at_s: float = 0.0

    def level_at(self, now_s: float, per_min: int) -> float:
        elapsed_s = max(0.0, now_s - self.at_s)
        return min(float(per_min), self.level + elapsed_s * per_min / MINUTE_S)


@dataclass(slots=True)
class TenantState:
    buckets: dict[Limit, Bucket] = field(default_factory=dict)
    ends_s: dict[str, float] = field(default_factory=dict)  # of each sequence's lease


class MemoryLimiter:
    """`clock` gives seconds. Not for use from several threads at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tenants: dict[str, TenantState] = {}
        self._replicas: dict[str, float] = {}

    def admit(self, lease: Lease, quota: Quota, num_tokens: int) -> Verdict:
        now_s, state = self._clock(), self._tenants.setdefault(lease.tenant, TenantState())
        state.ends_s = {name: end_s for name, end_s in state.ends_s.items() if end_s > now_s}
        asked: dict[Limit, tuple[int | None, int]] = {
            "requests": (quota.requests_per_min, 1),
            "tokens": (quota.tokens_per_min, num_tokens),
        }
        levels: dict[Limit, float] = {}
        refused_by: Limit | None = None
        wait_s = 0.0
        for limit, (per_min, cost) in asked.items():
            if per_min is not None:
                bucket = state.buckets.get(limit, Bucket())
                levels[limit] = bucket.level_at(now_s, per_min)
                missing_s = (cost - levels[limit]) * MINUTE_S / per_min
                if missing_s > wait_s:
                    refused_by, wait_s = limit, missing_s
        most = quota.max_sequences
        if refused_by is None and most is not None:
            is_full = len(state.ends_s) + lease.num_sequences > most
            refused_by, wait_s = ("sequences", SEQUENCES_RETRY_S) if is_full else (None, 0.0)
        if refused_by is None:
            for limit in levels:
                levels[limit] -= asked[limit][1]
                state.buckets[limit] = Bucket(levels[limit], now_s)
            self.hold(lease)
        left = {limit: max(0, math.floor(level)) for limit, level in levels.items()}
        return Verdict(refused_by, wait_s, left.get("requests"), left.get("tokens"))

    def hold(self, lease: Lease) -> None:
        """A lease that was taken elsewhere."""
        state = self._tenants.setdefault(lease.tenant, TenantState())
        state.ends_s.update(dict.fromkeys(lease.members, self._clock() + LEASE_S))

    def settle(self, lease: Lease, quota: Quota, num_unused: int) -> None:
        now_s, state = self._clock(), self._tenants.setdefault(lease.tenant, TenantState())
        for name in lease.members:
            state.ends_s.pop(name, None)
        bucket, per_min = state.buckets.get("tokens"), quota.tokens_per_min
        if bucket is not None and per_min is not None:
            level = min(float(per_min), bucket.level_at(now_s, per_min) + num_unused)
            state.buckets["tokens"] = Bucket(level, now_s)

    def renew(self, replica_id: str, leases: Sequence[Lease]) -> int:
        now_s = self._clock()
        for lease in leases:
            self.hold(lease)
        self._replicas[replica_id] = now_s + LEASE_S
        self._replicas = {name: end for name, end in self._replicas.items() if end > now_s}
        return len(self._replicas)
