"""A limiter that can be away and counts its calls, and requests of a tenant that is limited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from http_calls import COMPLETIONS

from cluster.limits.limiter import Lease, LimiterError, Quota, Verdict
from cluster.limits.memory import MemoryLimiter


class Watched:
    """A limiter that can be away, and whose calls are counted."""

    def __init__(self) -> None:
        self.inner = MemoryLimiter(time.monotonic)
        self.is_away = False
        self.calls: list[str] = []
        self.num_replicas = 1

    def admit(self, lease: Lease, quota: Quota, num_tokens: int) -> Verdict:
        self._note("admit")
        return self.inner.admit(lease, quota, num_tokens)

    def settle(self, lease: Lease, quota: Quota, num_unused: int) -> None:
        self._note(f"settle {num_unused}")
        self.inner.settle(lease, quota, num_unused)

    def renew(self, replica_id: str, leases: Sequence[Lease]) -> int:
        self._note(f"renew {len(leases)}")
        return self.num_replicas

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.is_away:
            raise LimiterError("away")


def body(**more: object) -> dict[str, object]:
    return {"model": "tiny", "prompt": "abc", "max_tokens": 6, **more}


async def post(server: Any, login: dict[str, str], **more: object) -> Any:
    return await server.client.post(COMPLETIONS, json=body(**more), headers=login)


async def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.002)
