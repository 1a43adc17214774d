"""The ingress's view of the target, and of the router: calls over Serve handles."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from ray.exceptions import RayTaskError

from cluster.drafter_changes import DrafterChange, DrafterChangeError
from cluster.statistics.health import StoreHealth
from deployments.engine_thread import EngineStoppedError
from deployments.model_card import ModelCard
from deployments.refusal import Refusal, RefusedError
from deployments.route import ANYWHERE, SUSPICION, Route
from deployments.router_store import Unreachable
from deployments.target_counters import TargetCounters
from engine.request import Emission, GenerationRequest

CONTROL_TIMEOUT_S = 5.0


class TargetFailedError(Exception):
    """A target answers, and with an error of its own; another try may meet it again."""


class AnswerSource(Protocol):
    """Targets, as far as answers come from them."""

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

    @property
    def has_others(self) -> bool:
        """Whether a further attempt would be at another target, one that is not suspected."""
        ...


class Reports(Protocol):
    """Targets, as far as they tell what their selectors know."""

    async def selectors(self) -> list[dict[str, Any]]:
        """Of every replica, as JSON has it."""
        ...


class TargetClient(AnswerSource, Reports, Protocol):
    """Every call may fail while a target is away."""

    async def describe(self) -> ModelCard: ...

    async def counters(self) -> list[TargetCounters]:
        """Of every replica."""
        ...

    async def change_drafters(
        self, change: DrafterChange
    ) -> DrafterChangeError | Unreachable | None:
        """What is wrong with the change; None if it is done."""
        ...

    async def store_health(self) -> StoreHealth:
        """Of the statistics' Redis, as the router sees it."""
        ...


class HandleClient:
    """Over the handles of the deployments Target and Router."""

    def __init__(self, handle: Any, router: Any) -> None:
        self._handle = handle
        self._router = router

    async def describe(self) -> ModelCard:
        card: ModelCard = await self._handle.describe.remote()
        return card

    async def counters(self) -> list[TargetCounters]:
        response = self._handle.broadcast("counters")
        found: list[TargetCounters] = await response.results_async(timeout_s=CONTROL_TIMEOUT_S)
        return found

    async def selectors(self) -> list[dict[str, Any]]:
        response = self._handle.broadcast("selectors")
        found: list[dict[str, Any]] = await response.results_async(timeout_s=CONTROL_TIMEOUT_S)
        return found

    async def change_drafters(
        self, change: DrafterChange
    ) -> DrafterChangeError | Unreachable | None:
        wrong: DrafterChangeError | Unreachable | None = await self._handle.change_drafters.remote(
            change
        )
        return wrong

    async def store_health(self) -> StoreHealth:
        health: StoreHealth = await self._router.health.remote()
        return health

    def suspect(self, route: Route) -> None:
        SUSPICION.note(route.session_id)

    @property
    def has_others(self) -> bool:
        return SUSPICION.num_trusted > 1

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
        except EngineStoppedError:  # it is about to be replaced
            raise
        except RayTaskError as error:
            raise TargetFailedError(type(error).__name__) from error
        finally:
            if not is_complete:
                response.cancel()
