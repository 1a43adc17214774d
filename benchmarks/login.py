"""The API key for a running application: HEDGEROW_API_KEY, else that of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.embedded_redis import EmbeddedRedis, state_folder
from cluster.tenants.address import VARIABLE, tenants_client
from cluster.tenants.api_key import new_key
from cluster.tenants.development import FILE, ensure_key
from cluster.tenants.redis_store import RedisTenants


def api_key() -> str:
    """Raises OSError if there is neither; `make serve` makes this machine's."""
    return os.environ.get("HEDGEROW_API_KEY") or (state_folder() / FILE).read_text().strip()


def login() -> dict[str, str]:
    """As a header."""
    return {"Authorization": f"Bearer {api_key()}"}


@contextmanager
def own_tenants(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of an application whose tenants have a Redis of their own, in `folder`.

    Its operator's key is what `api_key` gives meanwhile: what happens to other servers is no
    matter of keys.
    """
    with EmbeddedRedis(folder) as server:
        environment, key = {VARIABLE: server.url}, new_key().text
        with tenants_client(environment) as (client, _):
            ensure_key(RedisTenants(lambda: client), key)
        os.environ["HEDGEROW_API_KEY"] = key
        try:
            yield environment
        finally:
            del os.environ["HEDGEROW_API_KEY"]
