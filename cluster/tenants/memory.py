"""A store of tenants in this process: the reference for the scripts, and for tests."""

from __future__ import annotations

from collections.abc import Callable

from cluster.tenants.store import Credential
from cluster.tenants.tenant import Tenant


class MemoryTenants:
    """`clock` gives seconds. Not for use from several threads at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[str, tuple[str, str, float]] = {}  # id -> tenant, digest, end

    def find(self, key_id: str) -> Credential | None:
        name, digest, end_s = self._keys.get(key_id, ("", "", 0.0))
        tenant = self._tenants.get(name)
        return Credential(tenant, digest) if tenant and self._clock() < end_s else None

    def tenants(self) -> dict[str, Tenant]:
        return dict(self._tenants)

    def put(self, tenant: Tenant, before: Tenant | None) -> bool:
        if self._tenants.get(tenant.name) != before:
            return False
        self._tenants[tenant.name] = tenant
        return True

    def add_key(self, name: str, key_id: str, digest: str, grace_s: float | None) -> bool:
        if name not in self._tenants:
            return False
        for other, (owner, old, end_s) in list(self._keys.items()):
            if owner == name and grace_s is not None:
                self._keys[other] = owner, old, min(end_s, self._clock() + grace_s)
        self._keys[key_id] = name, digest, float("inf")
        return True

    def remove(self, name: str) -> bool:
        self._keys = {key: value for key, value in self._keys.items() if value[0] != name}
        return self._tenants.pop(name, None) is not None
