"""The ingress's view of the targets: a few calls, over a Serve handle."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from deployments.model_card import ModelCard
from deployments.refusal import Refusal, RefusedError
from deployments.route import ANYWHERE, SUSPICION, Route
from deployments.target_counters import TargetCounters
from engine.request import Emission, GenerationRequest

CONTROL_TIMEOUT_S = 5.0


class TargetClient(Protocol):
    async def describe(self) -> ModelCard: ...

    async def counters(self) -> list[TargetCounters]:
        """Of every replica."""
        ...

    def generate(
        self, requests: Sequence[GenerationRequest], route: Route = ANYWHERE
    ) -> AsyncGenerator[list[Emission], None]:
        """Closing it stops the work. Raises RefusedError first if the target takes none of it.

        An item may be empty: the target has the requests, and is alive.
        """
        ...

    def suspect(self, route: Route) -> None:
        """The target at the end of `route` did not answer: others are tried before it."""
        ...


class HandleClient:
    """Over the handle of the deployment Target."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def describe(self) -> ModelCard:
        card: ModelCard = await self._handle.describe.remote()
        return card

    async def counters(self) -> list[TargetCounters]:
        response = self._handle.broadcast("counters")
        found: list[TargetCounters] = await response.results_async(timeout_s=CONTROL_TIMEOUT_S)
        return found

    def suspect(self, route: Route) -> None:
        SUSPICION.note(route.session_id)

    async def generate(
        self, requests: Sequence[GenerationRequest], route: Route = ANYWHERE
    ) -> AsyncGenerator[list[Emission], None]:
        handle = self._handle.options(stream=True, session_id=route.session_id)
        response = handle.generate.remote(list(requests))
        is_complete = False
        try:
            async for item in response:
                if isinstance(item, Refusal):
                    raise RefusedError(item)
                yield item
            is_complete = True
        finally:
            if not is_complete:
                response.cancel()
