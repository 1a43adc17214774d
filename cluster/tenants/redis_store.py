"""Tenants and keys in Redis (6.2 and newer) or Valkey, without a time to live: nothing is evicted.

Keys share a hash tag with the schema version in it, so that a script may touch several of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from redis import Redis, RedisError

from cluster.lua_scripts import LuaScripts
from cluster.redis_connection import NoServerError
from cluster.tenants.store import Credential, TenantStoreError
from cluster.tenants.tenant import Tenant

PREFIX = "hedgerow:tenants:{1}:"
_TENANTS = f"{PREFIX}tenants"
_KEY = f"{PREFIX}key:"
T = TypeVar("T")


class RedisTenants:
    """`client` gives the client to use now; see `cluster.redis_connection`."""

    def __init__(self, client: Callable[[], Redis]) -> None:
        self._client = client
        names = ("find", "put", "add_key", "remove")
        self._scripts = LuaScripts(client, Path(__file__).parent, names)

    def find(self, key_id: str) -> Credential | None:
        answer = self._run("find", [f"{_KEY}{key_id}", _TENANTS])
        if not answer:
            return None
        digest, record = answer
        return Credential(_tenant(record), digest)

    def tenants(self) -> dict[str, Tenant]:
        records: Any = _guarded(lambda: self._client().hgetall(_TENANTS))
        return {name: _tenant(record) for name, record in sorted(records.items())}

    def put(self, tenant: Tenant, before: Tenant | None) -> bool:
        stored: Any = _guarded(lambda: self._client().hget(_TENANTS, tenant.name))
        expected = stored or ""
        if (_tenant(expected) if expected else None) != before:
            return False
        return bool(self._run("put", [_TENANTS], tenant.name, expected, tenant.model_dump_json()))

    def add_key(self, name: str, key_id: str, digest: str, grace_s: float | None) -> bool:
        grace_ms = -1 if grace_s is None else round(grace_s * 1000)
        keys = [_TENANTS, f"{PREFIX}keys:{name}", f"{_KEY}{key_id}"]
        return bool(self._run("add_key", keys, name, key_id, digest, grace_ms, _KEY))

    def remove(self, name: str) -> bool:
        return bool(self._run("remove", [_TENANTS, f"{PREFIX}keys:{name}"], name, _KEY))

    def _run(self, script: str, keys: list[str], *arguments: str | int) -> Any:
        return _guarded(lambda: self._scripts.run(script, keys, *arguments))


def _guarded(call: Callable[[], T]) -> T:
    try:
        return call()
    except (RedisError, OSError, NoServerError) as error:
        raise TenantStoreError(f"{type(error).__name__}: {error}") from error


def _tenant(record: str) -> Tenant:
    try:
        return Tenant.model_validate_json(record)
    except ValidationError as error:
        raise TenantStoreError("a tenant's record cannot be read") from error
