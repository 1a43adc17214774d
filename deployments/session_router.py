"""Serve's consistent hashing by session, with later attempts elsewhere and silent targets last."""

from __future__ import annotations

from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

from deployments.route import SUSPICION, Route, ranked


class SessionRouter(ConsistentHashRouter):
    """For the handle of the deployment Target; see `deployments.route` for what it is asked."""

    def _routing_key(self, pending_request: Any = None) -> str | None:
        key = super()._routing_key(pending_request)
        return None if key is None else Route.read(key).session

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        ranks = await super().choose_replicas(candidate_replicas, pending_request)
        session_id = pending_request.metadata.session_id if pending_request else ""
        if not session_id or not ranks:
            return list(ranks)
        targets = [replica.replica_id for (replica,) in ranks]
        order = SUSPICION.order(ranked(targets, Route.read(session_id).attempt))
        SUSPICION.chose(session_id, order)
        return [ranks[targets.index(target)] for target in order]
