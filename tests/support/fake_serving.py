"""A fake engine behind the real thread, target client and HTTP application: no Ray, no model."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI
from selector_reports import first_report

from cluster.config import ClusterConfig
from cluster.drafter_changes import DrafterChange, DrafterChangeError, DrafterChanges
from cluster.limits.usage import MemoryUsage
from cluster.statistics.health import StoreHealth
from cluster.tenants.api_key import new_key
from cluster.tenants.memory import MemoryTenants
from cluster.tenants.tenant import Tenant
from deployments.admission import Admission
from deployments.engine_thread import EngineThread
from deployments.gateway import Gateway
from deployments.latencies import Latencies
from deployments.model_card import ModelCard
from deployments.refusal import Refusal, RefusedError
from deployments.route import ANYWHERE, Route
from deployments.router_store import Unreachable
from deployments.target_counters import DrafterNote, TargetCounters
from engine.counters import EngineCounters
from engine.errors import CapacityError
from engine.request import (
    DrafterUse,
    Emission,
    FinishReason,
    GenerationRequest,
    SpeculationUse,
    TokenLogprob,
)
from engine.text import Text

SCRIPT = "Grüße 😀 from the hedge. "


@dataclass
class FakeEngine:
    """Answers SCRIPT over and over, three bytes a round; sees no stop strings but `hedge`."""

    text: Text
    capacity: int = 8
    tokens_per_round: int = 3
    fails_at_round: int | None = None
    seconds_per_round: float = 0.0
    num_rounds: int = 0
    live: dict[str, tuple[GenerationRequest, int]] = field(default_factory=dict)
    seen: list[GenerationRequest] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def submit(self, request: GenerationRequest) -> None:
        if len(self.live) >= self.capacity:
            raise CapacityError("queue", len(self.live) + 1, self.capacity)
        self.seen.append(request)
        self.live[request.sequence_id] = (request, len(request.emitted_ids))

    def check_room(self, tenant: str, num_coming: int = 0) -> None:
        if len(self.live) + num_coming >= self.capacity:
            raise CapacityError("queue", len(self.live) + 1, self.capacity)

    def cancel(self, sequence_id: str) -> None:
        if self.live.pop(sequence_id, None):
            self.cancelled.append(sequence_id)

    @property
    def has_work(self) -> bool:
        return bool(self.live)

    def step(self) -> list[Emission]:
        self.num_rounds += 1
        time.sleep(self.seconds_per_round)
        if self.num_rounds == self.fails_at_round:
            raise RuntimeError("out of memory")
        return [self._advance(*item) for item in list(self.live.values())]

    def _advance(self, request: GenerationRequest, num_done: int) -> Emission:
        num_end = min(num_done + self.tokens_per_round, request.max_tokens)
        script = self.text.encode(SCRIPT, add_special_tokens=False)
        ids = list(itertools.islice(itertools.cycle(script), num_end))
        reason: FinishReason | None = "length" if num_end == request.max_tokens else None
        detokenizer = self.text.detokenizer()
        before = "".join(detokenizer.push(i) for i in ids[:num_done])
        written = before + "".join(detokenizer.push(i) for i in ids[num_done:])
        if reason:
            written += detokenizer.flush()
        for stop in request.stop:
            if stop in written:
                written, reason = written[: written.index(stop)], "stop"
        if reason:
            del self.live[request.sequence_id]
        else:
            self.live[request.sequence_id] = (request, num_end)
        return self._emission(request, ids, num_done, written[len(before) :], reason)

    def _emission(
        self,
        request: GenerationRequest,
        ids: Sequence[int],
        num_done: int,
        written: str,
        reason: FinishReason | None,
    ) -> Emission:
        new, num = tuple(ids[num_done:]), request.sampling.logprobs
        top = tuple((i, -1.0 - i) for i in range(num or 0))
        return Emission(
            sequence_id=request.sequence_id,
            token_ids=new,
            text=written,
            logprobs=() if num is None else tuple(TokenLogprob(i, -0.5, top) for i in new),
            finish_reason=reason,
            num_prompt_tokens=len(request.prompt_ids),
            num_cached_tokens=1,
            use=SpeculationUse(
                -(-len(ids) // max(1, self.tokens_per_round)),
                len(ids),
                {"lookup": DrafterUse(2, 5, 3)},
            ),
        )


class FakeTarget:
    """The target's side of the handle, in this process."""

    def __init__(self, engine: FakeEngine) -> None:
        self.thread = EngineThread(engine, pulse_s=1.0)
        self.is_loaded = True
        self.has_store = True
        drafters = [{"name": name, "kind": "prompt_lookup"} for name in ("lookup", "far")]
        self.config = ClusterConfig.model_validate({"drafters": drafters})
        self.changes = DrafterChanges()
        self.suspected: list[Route] = []
        self.has_others = False

    async def describe(self) -> ModelCard:
        if not self.is_loaded:
            await asyncio.Event().wait()
        return ModelCard("tiny", 257, 512, "fp_test", 1700000000)

    async def change_drafters(
        self, change: DrafterChange
    ) -> DrafterChangeError | Unreachable | None:
        if not self.has_store:
            return Unreachable("no store")
        try:
            self.changes = self.changes.after(change, self.config)
        except DrafterChangeError as error:
            return error
        return None

    async def counters(self) -> list[TargetCounters]:
        use = {"lookup": DrafterUse(2, 5, 3)}
        engine = EngineCounters(
            num_running=1,
            num_waiting=2,
            num_kv_blocks=10,
            num_kv_blocks_used=5,
            num_prompt_tokens=7,
            num_cached_tokens=3,
            num_emitted_tokens=11,
            num_rounds=4,
            num_preemptions=1,
            num_requests_finished=2,
            per_drafter=use,
            num_drafter_failures={"lookup": 1, "far": 4},
            drafter_states={"lookup": "ready", "far": "resting"},
        )
        note, added = DrafterNote("failed", "no such folder"), self.changes.added
        notes = {drafter.name: note for drafter in added}
        return [TargetCounters(engine, Latencies(), drafters=notes)] * 2

    async def selectors(self) -> list[dict[str, Any]]:
        return [first_report()] * 2

    async def store_health(self) -> StoreHealth:
        return StoreHealth(True, 1000, 4000)

    def suspect(self, route: Route) -> None:
        self.suspected.append(route)

    async def generate(
        self, requests: Sequence[GenerationRequest], route: Route = ANYWHERE
    ) -> AsyncGenerator[list[Emission], None]:
        rounds = self.thread.generate(requests)
        try:
            async for emissions in rounds:
                yield emissions
        except CapacityError as error:
            raise RefusedError(Refusal("full", None, str(error))) from error
        finally:
            await rounds.aclose()


@dataclass
class Server:
    """A running application with everything a test may look at.

    `client` has an operator's key, unless a test says otherwise.
    """

    engine: FakeEngine
    target: FakeTarget
    gateway: Gateway
    client: httpx.AsyncClient
    app: FastAPI
    tenants: MemoryTenants
    admission: Admission
    usage: MemoryUsage

    def login(self, tenant: Tenant) -> dict[str, str]:
        """Headers with a new key of that tenant."""
        self.tenants.put(tenant, self.tenants.tenants().get(tenant.name))
        key = new_key()
        self.tenants.add_key(tenant.name, key.key_id, key.digest, None)
        return {"Authorization": f"Bearer {key.text}"}

    async def post(self, path: str, **body: object) -> httpx.Response:
        return await self.client.post(path, json={"model": "tiny", **body})

    async def events(self, path: str, **body: object) -> list[str]:
        """The data of every event."""
        answer = await self.post(path, stream=True, **body)
        assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
        return [line.removeprefix("data: ") for line in answer.text.splitlines() if line]


Serving = Callable[..., AbstractAsyncContextManager[Server]]


class IdleEngine:
    has_work = False

    def submit(self, request: object) -> None: ...

    def check_room(self, tenant: str, num_coming: int = 0) -> None: ...

    def cancel(self, sequence_id: str) -> None: ...

    def step(self) -> list[Any]:
        raise AssertionError("there is nothing to do")


def request(name: str, max_tokens: int = 6, **options: Any) -> GenerationRequest:
    return GenerationRequest(name, (1, 2), max_tokens, **options)
