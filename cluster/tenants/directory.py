"""Whose a key is, from memory for a bounded time, and for longer while the store is away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cluster.statistics.breaker import Breaker
from cluster.tenants.api_key import ApiKey
from cluster.tenants.store import Credential, KeyFinder, TenantStoreError
from cluster.tenants.tenant import Tenant

MAX_AGE_S = 5.0
"""So long a removed key goes on, and a changed limit is not known."""
MAX_OUTAGE_S = 24 * 3600.0
"""So long known keys go on without a store to ask."""
MAX_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Known:
    """What the store said of a key id, and when; a credential of None is that there is no key."""

    credential: Credential | None
    at_s: float

    def tenant_of(self, key: ApiKey) -> Tenant | None:
        digest = None if self.credential is None else self.credential.digest
        is_right = key.matches(digest)
        return self.credential.tenant if self.credential is not None and is_right else None


class Directory:
    """`clock` is monotonic. Of one thread but for `ask`, which any number may run at once."""

    def __init__(self, finder: KeyFinder, clock: Callable[[], float], breaker: Breaker) -> None:
        self._finder = finder
        self._clock = clock
        self._breaker = breaker
        self._keys: OrderedDict[str, Known] = OrderedDict()
        self._absent: OrderedDict[str, Known] = OrderedDict()

    def recall(self, key_id: str) -> Known | None:
        """What is known and fresh."""
        known = self._last(key_id)
        return known if known and self._clock() < known.at_s + MAX_AGE_S else None

    def fall_back(self, key_id: str) -> Known | None:
        """What is known and good enough while the store is away: never that a key is missing."""
        known = self._keys.get(key_id)
        return known if known and self._clock() < known.at_s + MAX_OUTAGE_S else None

    def ask(self, key_id: str) -> Known:
        """Asks the store, and remembers nothing. Raises TenantStoreError."""
        if self._breaker.is_open:
            raise TenantStoreError("the store was away a moment ago")
        try:
            credential = self._finder.find(key_id)
        except TenantStoreError:
            self._breaker.fail()
            raise
        self._breaker.succeed()
        return Known(credential, self._clock())

    def learn(self, key_id: str, known: Known) -> None:
        """Absent keys are kept apart, so that a flood of guesses drives out no real one."""
        self._keys.pop(key_id, None)
        self._absent.pop(key_id, None)
        kept = self._absent if known.credential is None else self._keys
        kept[key_id] = known
        if len(kept) > MAX_KEYS:
            kept.popitem(last=False)

    def _last(self, key_id: str) -> Known | None:
        return self._keys.get(key_id) or self._absent.get(key_id)
