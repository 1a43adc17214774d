"""The contract of every store of tenants and keys: what ingresses ask, and what operators do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cluster.tenants.tenant import Tenant


class TenantStoreError(Exception):
    """The store did not answer, or not as it should; whether it did its work is unknown."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A key's hash, and whose it is."""

    tenant: Tenant
    digest: str = field(repr=False)


class KeyFinder(Protocol):
    def find(self, key_id: str) -> Credential | None:
        """None if there is no such key, or it has expired. Raises TenantStoreError."""
        ...


class TenantStore(Protocol):
    """Every method raises TenantStoreError, and only that, if the store cannot be reached."""

    def tenants(self) -> dict[str, Tenant]:
        """All there are, by name."""
        ...

    def put(self, tenant: Tenant, before: Tenant | None) -> bool:
        """Stores it if what is stored is `before`, None being nothing; else does nothing."""
        ...

    def add_key(self, name: str, key_id: str, digest: str, grace_s: float | None) -> bool:
        """False if there is no such tenant. Its other keys end after `grace_s`, None is never."""
        ...

    def remove(self, name: str) -> bool:
        """With all its keys. False if there is no such tenant."""
        ...
