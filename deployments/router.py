"""The router: owns what is learnt, and which drafters there are. Holds the connection to Redis, so
that targets need none.

It decides nothing and keeps nothing that is not in the store: targets send their counts as a
writer's totals, numbered, and read what all have counted. So it may end and start again any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from cluster.config import ClusterConfig
from cluster.drafter_changes import DrafterChange, DrafterChangeError, DrafterChanges
from cluster.statistics.client import connect
from cluster.statistics.drafter_store import DrafterStore
from cluster.statistics.health import StoreHealth, read_health
from cluster.statistics.keys import Pool
from cluster.statistics.store import StoreError
from cluster.statistics.stores import Stores
from cluster.tenants.address import tenants_url
from deployments.metric_families import store_families, tenants_store_families
from deployments.metrics_export import ExportThread, RayInstruments
from deployments.router_store import Operation, Unreachable

_MAX_TRIES = 16  # of a change, while others change the same document


class Router:
    """Operations of `StatisticsStore`, on the Redis of REDIS_URL or a private one.

    Raises UrlError at the start if REDIS_URL or that of tenants cannot be used.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config = ClusterConfig.model_validate(config)
        self._latest: dict[str, DrafterChanges] = {}
        stores = self._stores = Stores()
        tenants_health = _tenants_health(stores)
        self._export = ExportThread(
            lambda: [
                *store_families(stores.health()),
                *tenants_store_families(tenants_health()),
            ],
            RayInstruments(),
        )

    def ask(self, pool: Pool, operation: Operation, *arguments: object) -> object:
        """What the store of `pool` answers, or Unreachable. Blocks: Serve has threads for that."""
        try:
            result: object = getattr(self._stores.find(pool), operation)(*arguments)
        except StoreError as error:
            return Unreachable(str(error))
        return result

    def drafter_changes(self, model: str) -> DrafterChanges | Unreachable:
        """The present document of the model with this fingerprint. Blocks."""
        try:
            return self._read(self._stores.drafters(), model)
        except StoreError as error:
            return Unreachable(str(error))

    def change_drafters(
        self, model: str, change: DrafterChange
    ) -> DrafterChanges | DrafterChangeError | Unreachable:
        """The document after the change, once the store has it. Blocks."""
        try:
            store = self._stores.drafters()
            for _ in range(_MAX_TRIES):
                before = self._read(store, model)
                after = before.after(change, self._config, time.time_ns() // 1000)
                if store.replace(model, before.version, after):
                    self._latest[model] = after
                    return after
        except DrafterChangeError as error:
            return error
        except StoreError as error:
            return Unreachable(str(error))
        return Unreachable("others change the drafters all the time")

    def _read(self, store: DrafterStore, model: str) -> DrafterChanges:
        """A store that was rolled back or flushed gets back what it lacks of what is known here."""
        found = store.read(model)
        merged = self._merged(found, self._latest.get(model, found))
        if merged is not found:
            store.replace(model, found.version, merged)
        self._latest[model] = merged
        return merged

    def _merged(self, found: DrafterChanges, latest: DrafterChanges) -> DrafterChanges:
        merged = found.merged(latest)
        try:
            merged.apply(self._config)
        except ValidationError:  # together they are too many drafters
            return max(found, latest, key=lambda document: document.version)
        return merged

    def health(self) -> StoreHealth:
        """Of the Redis; blocks for as long as its client waits."""
        return self._stores.health()

    def __del__(self) -> None:  # the name that Serve calls in the end
        if hasattr(self, "_export"):
            self._export.stop()
        if hasattr(self, "_stores"):
            self._stores.close()


def _tenants_health(stores: Stores) -> Callable[[], StoreHealth]:
    """Of the tenants' Redis; without a URL it is the private server of the statistics."""
    url = tenants_url()
    if url is None:
        return stores.health
    client = connect(url)
    return lambda: read_health(client)
