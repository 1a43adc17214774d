"""Whether a tenant's request may run now: limits, leases, and the account of what was used.

Without Redis a replica goes on by itself, with its part of each limit; a tenant without limits is
never kept waiting for either.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from cluster.limits.limiter import Lease, Limiter, LimiterError, Quota, Verdict
from cluster.limits.memory import MemoryLimiter
from cluster.limits.usage import Account, Usage, UsageBook, UsageStore
from cluster.statistics.breaker import Breaker
from cluster.tenants.tenant import Tenant
from deployments.call import Call
from deployments.errors import invalid
from deployments.rate_limits import OverLimitError, rate_headers
from deployments.tenant_counts import TenantCounts

NUM_THREADS = 4
UPKEEP_S = 5.0
REPEAT_EVERY = 60  # of upkeep
MAX_REMEMBERED_S = 1.0
NO_LIMITS = Quota()
T = TypeVar("T")


@dataclass(slots=True)
class Permit:
    """What a request holds until `end`, which may be called again. `headers` are the answer's."""

    lease: Lease
    quota: Quota
    num_reserved: int
    until_s: float
    headers: dict[str, str]
    _end: Callable[[Permit, Usage], None] = field(repr=False)

    def end(self, used: Usage) -> None:
        self._end(self, used)


class Admission:
    """For one event loop, in which `admit` starts a task of upkeep. `clock` is monotonic."""

    def __init__(
        self, limiter: Limiter, usage: UsageStore, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limiter = limiter
        self._usage = usage
        self._clock = clock
        self._local = MemoryLimiter(clock)
        self._breaker = Breaker(clock, random.random)
        self._threads = ThreadPoolExecutor(NUM_THREADS, "limits")
        self._replica_id = uuid.uuid4().hex
        self._num_replicas = 1
        self._permits: dict[str, Permit] = {}
        self._refusals: dict[str, tuple[float, Verdict]] = {}
        self._book = UsageBook()
        self.counts = TenantCounts()
        self._upkeep: asyncio.Task[None] | None = None

    def check(self, tenant: Tenant) -> None:
        """Before a body is read: raises OverLimitError if the last one said that it is too soon."""
        until_s, verdict = self._refusals.get(tenant.name, (0.0, None))
        left_s = until_s - self._clock()
        quota = quota_of(tenant)
        if verdict is not None and left_s > 0 and quota.requests_per_min is not None:
            self._count(tenant.name, Usage(num_refused=1))
            raise OverLimitError(quota, verdict)

    def note_refused(self, tenant: Tenant) -> None:
        """By another than this: into the account of what was used."""
        self._count(tenant.name, Usage(num_refused=1))

    async def admit(self, tenant: Tenant, call: Call, timeout_s: float) -> Permit:
        """Raises OverLimitError, or ApiError 400 for what can never be admitted."""
        if self._upkeep is None:
            self._upkeep = asyncio.ensure_future(self._keep_up())
        permit = asyncio.ensure_future(self._permit(tenant, call, timeout_s))
        try:
            return await asyncio.shield(permit)
        except asyncio.CancelledError:
            permit.add_done_callback(_end_unused)
            raise

    async def _permit(self, tenant: Tenant, call: Call, timeout_s: float) -> Permit:
        quota, lease = quota_of(tenant), Lease(tenant.name, call.call_id, len(call.requests))
        num_tokens = _num_tokens(call, quota)
        verdict = await self._decide(lease, quota, num_tokens)
        if verdict.refused_by is not None:
            self._count(tenant.name, Usage(num_refused=1))
            if verdict.refused_by == "requests":
                until_s = self._clock() + min(verdict.wait_s, MAX_REMEMBERED_S)
                self._refusals[tenant.name] = until_s, verdict
            raise OverLimitError(quota, verdict)
        until_s, headers = self._clock() + timeout_s, rate_headers(quota, verdict)
        permit = Permit(lease, quota, num_tokens, until_s, headers, self._settle)
        self._permits[lease.lease_id] = permit
        return permit

    def close(self) -> None:
        """Writes what was used."""
        if self._upkeep is not None:
            with suppress(RuntimeError):  # its loop is closed
                self._upkeep.cancel()
        with suppress(LimiterError):
            self._usage.write(self._replica_id, self._book.entries())
        self._threads.shutdown(wait=False)

    async def _decide(self, lease: Lease, quota: Quota, num_tokens: int) -> Verdict:
        if quota == NO_LIMITS:
            return Verdict(None, 0.0, None, None)
        if not self._breaker.is_open:
            with suppress(LimiterError):
                verdict = await self._ask(lambda: self._limiter.admit(lease, quota, num_tokens))
                if verdict.refused_by is None:
                    self._local.hold(lease)
                return verdict
        part = quota.shared_by(self._num_replicas)
        return self._local.admit(lease, part, min(num_tokens, part.tokens_per_min or num_tokens))

    async def _ask(self, call: Callable[[], T]) -> T:
        """In a thread. Raises LimiterError."""
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except LimiterError:
            self._breaker.fail()
            raise
        self._breaker.succeed()
        return answer

    def _settle(self, permit: Permit, used: Usage) -> None:
        """Waits for nothing: leases that are not given back end by themselves."""
        if self._permits.pop(permit.lease.lease_id, None) is None:
            return
        self._count(permit.lease.tenant, used)
        if permit.quota != NO_LIMITS:
            num_unused = permit.num_reserved - used.num_tokens
            part = permit.quota.shared_by(self._num_replicas)
            self._local.settle(permit.lease, part, num_unused)
            self._give_back(permit.lease, permit.quota, num_unused)

    def _give_back(self, lease: Lease, quota: Quota, num_unused: int) -> None:
        def give_back() -> None:
            with suppress(LimiterError):
                self._limiter.settle(lease, quota, num_unused)

        if not self._breaker.is_open:
            with suppress(RuntimeError):  # the threads have ended
                self._threads.submit(give_back)

    def _count(self, tenant: str, used: Usage) -> None:
        self.counts.use(tenant, used.num_prompt_tokens)
        if used != Usage():
            self._book.add(Account(_today(), tenant), used)

    async def _keep_up(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(UPKEEP_S)
            number += 1
            if number % REPEAT_EVERY == 0:
                self._book.repeat(_today())
            with suppress(LimiterError):
                await self.renew()
                await self._write_usage()

    async def renew(self) -> None:
        """Leases of what still runs, and the sign that this replica does. Raises LimiterError."""
        now_s = self._clock()
        for permit in list(self._permits.values()):
            if permit.until_s < now_s:
                permit.end(Usage())
        held = [each for each in self._permits.values() if each.quota != NO_LIMITS]
        leases = [permit.lease for permit in held]
        self._local.renew(self._replica_id, leases)
        renew = lambda: self._limiter.renew(self._replica_id, leases)  # noqa: E731
        self._num_replicas = max(1, await self._ask(renew))
        for permit in held:
            if permit.lease.lease_id not in self._permits:  # ended meanwhile, and renewed after
                self._give_back(permit.lease, permit.quota, 0)

    async def _write_usage(self) -> None:
        entries = self._book.entries()
        if entries:
            await self._ask(lambda: self._usage.write(self._replica_id, entries))
            self._book.acknowledge(entries)


def _end_unused(permit: asyncio.Future[Permit]) -> None:
    """Whoever asked for it has gone meanwhile."""
    if not permit.cancelled() and permit.exception() is None:
        permit.result().end(Usage())


def quota_of(tenant: Tenant) -> Quota:
    return Quota(tenant.requests_per_min, tenant.tokens_per_min, tenant.max_sequences)


def _num_tokens(call: Call, quota: Quota) -> int:
    """What to reserve: all that it may use, but no more than the bucket holds."""
    num_prompt_tokens = sum(len(each.prompt_ids) for each in call.requests[:: call.num_choices])
    most = quota.tokens_per_min
    if most is not None and num_prompt_tokens > most:
        message = f"{num_prompt_tokens} prompt tokens are more than the {most} of a whole minute"
        raise invalid(None, message, "rate_limit_exceeded")
    if quota.max_sequences is not None and len(call.requests) > quota.max_sequences:
        message = f"n: {len(call.requests)} choices, and only {quota.max_sequences} may run at once"
        raise invalid("n", message, "rate_limit_exceeded")
    num_tokens = num_prompt_tokens + sum(request.max_tokens for request in call.requests)
    return num_tokens if most is None else min(num_tokens, most)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
