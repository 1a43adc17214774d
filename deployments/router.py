"""The router: owns what is learnt. Holds the connection to Redis, so that targets need none.

It decides nothing and keeps nothing: targets send their counts as a writer's totals, numbered, and
read what all have counted. So it may end and start again at any time.
"""

from __future__ import annotations

from cluster.statistics.health import StoreHealth
from cluster.statistics.keys import Pool
from cluster.statistics.store import StoreError
from cluster.statistics.stores import Stores
from deployments.metric_families import store_families
from deployments.metrics_export import ExportThread, RayInstruments
from deployments.router_store import Operation, Unreachable


class Router:
    """Operations of `StatisticsStore`, on the Redis of REDIS_URL or a private one.

    Raises UrlError at the start if REDIS_URL cannot be used.
    """

    def __init__(self) -> None:
        stores = self._stores = Stores()
        self._export = ExportThread(lambda: store_families(stores.health()), RayInstruments())

    def ask(self, pool: Pool, operation: Operation, *arguments: object) -> object:
        """What the store of `pool` answers, or Unreachable. Blocks: Serve has threads for that."""
        try:
            result: object = getattr(self._stores.find(pool), operation)(*arguments)
        except StoreError as error:
            return Unreachable(str(error))
        return result

    def health(self) -> StoreHealth:
        """Of the Redis; blocks for as long as its client waits."""
        return self._stores.health()

    def __del__(self) -> None:  # the name that Serve calls in the end
        if hasattr(self, "_export"):
            self._export.stop()
        if hasattr(self, "_stores"):
            self._stores.close()
