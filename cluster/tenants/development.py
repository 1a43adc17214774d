"""The tenant of a developer's machine: an operator whose key is in a file of the state folder."""

from __future__ import annotations

import os
from collections.abc import Mapping

from redis import RedisError

from cluster.embedded_redis import EmbeddedRedisError, state_folder
from cluster.kept_secret import KeptSecretError, kept_secret
from cluster.statistics.client import UrlError, masked
from cluster.tenants.address import VARIABLE, tenants_client
from cluster.tenants.api_key import MIN_LENGTH, new_key, parse_key
from cluster.tenants.redis_store import RedisTenants
from cluster.tenants.store import TenantStore, TenantStoreError
from cluster.tenants.tenant import Tenant

NAME = "development"
FILE = "development-key"


class DevelopmentKeyError(Exception):
    """There can be no such key; the message says why."""


def development_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """The key, and the store knows it; None where tenants have a Redis of their own."""
    if environ.get(VARIABLE):
        return None
    path = state_folder(environ) / FILE
    try:
        text = kept_secret(path, new_key().text, MIN_LENGTH)
        with tenants_client(environ) as (client, url):
            try:
                ensure_key(RedisTenants(lambda: client), text)
            except TenantStoreError as error:
                raise DevelopmentKeyError(f"{masked(url)}: {error}") from error
    except (KeptSecretError, UrlError, EmbeddedRedisError, RedisError, OSError) as error:
        raise DevelopmentKeyError(str(error)) from error
    return text


def ensure_key(store: TenantStore, text: str) -> None:
    """Adds the tenant and the key if they are not there; the tenant's other keys end."""
    key = parse_key(text)
    if key is None:
        raise DevelopmentKeyError(f"{FILE}: holds no key; remove it, and another is made")
    store.put(Tenant(name=NAME, role="operator"), None)
    store.add_key(NAME, key.key_id, key.digest, 0.0)
