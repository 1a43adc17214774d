"""Says no for a full target before a request's body is read, as often as the target itself would.

Of a tenant's requests that are let through a share f is refused; then f of those that come are
refused here. At ten times what can be answered two thirds never reach the target, whose queue stays
full. With several targets a request counts as refused when two were full, so that one alone closes
no others. Each tenant has its own f, so that a flood closes the door before itself alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deployments.errors import OverloadedError

GAIN = 0.05  # of the newest outcome
MEMORY_S = 1.0
MIN_SHARE = 0.1  # below, the target may say so itself
MAX_TENANTS = 1024  # remembered; then those are forgotten whom nothing refuses any more


@dataclass(slots=True)
class _Refused:
    """Of one tenant: the share, and when the target was full last."""

    share: float
    full_s: float


class Backpressure:
    """`clock` is monotonic, `uniform` gives a number in [0, 1)."""

    def __init__(self, clock: Callable[[], float], uniform: Callable[[], float]) -> None:
        self._clock = clock
        self._uniform = uniform
        self._refused: dict[str, _Refused] = {}

    def check(self, tenant: str) -> None:
        """Raises OverloadedError for some of a tenant's requests while targets refuse some."""
        refused = self._refused.get(tenant)
        if refused is None:
            return
        if self._clock() - refused.full_s > MEMORY_S:
            del self._refused[tenant]
        elif refused.share > MIN_SHARE and self._uniform() < refused.share:
            raise OverloadedError("more requests come than can be answered")

    def note(self, tenant: str, is_full: bool) -> None:
        """What the target said to one that was let through."""
        refused = self._refused.get(tenant)
        if refused is None:
            if not is_full:
                return
            self._forget_old()
            refused = self._refused.setdefault(tenant, _Refused(0.0, self._clock()))
        refused.share += GAIN * (is_full - refused.share)
        if is_full:
            refused.full_s = self._clock()

    def _forget_old(self) -> None:
        if len(self._refused) >= MAX_TENANTS:
            oldest_s = self._clock() - MEMORY_S
            self._refused = {k: r for k, r in self._refused.items() if r.full_s > oldest_s}
