"""Targets on real engine threads that are lost as a test says, and what a client hears of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tiny_models import tiny_engine

from cluster.settings import Resume
from deployments.engine_thread import EngineThread
from deployments.model_card import ModelCard
from deployments.refusal import Refusal, RefusedError
from deployments.resume import ResumingClient
from deployments.route import ANYWHERE, Route
from deployments.target_client import TargetFailedError
from deployments.target_counters import TargetCounters
from engine.request import Emission, GenerationRequest, SamplingParams, TokenLogprob

PULSE_S = 0.02
SOON = Resume(stall_timeout_s=3.0)


@dataclass
class Replicas:
    """Targets that fail as `faults` says: (after so many items, how), one for each attempt."""

    threads: Sequence[EngineThread]
    faults: Iterator[tuple[int, str]]
    seen: list[list[GenerationRequest]] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    suspected: list[Route] = field(default_factory=list)

    async def describe(self) -> ModelCard:
        raise NotImplementedError

    async def counters(self) -> list[TargetCounters]:
        return []

    def suspect(self, route: Route) -> None:
        self.suspected.append(route)

    @property
    def has_others(self) -> bool:
        return len(self.threads) > 1

    async def generate(
        self, requests: Sequence[GenerationRequest], route: Route = ANYWHERE
    ) -> AsyncGenerator[list[Emission], None]:
        self.seen.append(list(requests))
        self.routes.append(route)
        num_items, fault = next(self.faults, (10**9, ""))
        rounds = self.threads[route.attempt % len(self.threads)].generate(requests)
        try:
            for i in itertools.count():
                if i == num_items:
                    await fail(fault)
                try:
                    emissions = await anext(rounds)
                except StopAsyncIteration:
                    return
                yield emissions
        finally:
            await rounds.aclose()


async def until_idle(targets: Replicas) -> None:
    thread = targets.threads[0]
    while await thread.run(lambda: thread._engine.has_work):
        pass


async def fail(fault: str) -> None:
    if fault == "dies":
        raise ConnectionError("the actor died")
    if fault == "breaks":
        raise TargetFailedError("KeyError")
    if fault == "full":
        raise RefusedError(Refusal("full", None, "the queue is full"))
    if fault == "invalid":
        raise RefusedError(Refusal("invalid", "stop", "too many"))
    await asyncio.Event().wait()


@contextmanager
def replicas(*faults: tuple[int, str], count: int = 2) -> Iterator[Replicas]:
    threads = [EngineThread(tiny_engine(), PULSE_S) for _ in range(count)]
    try:
        yield Replicas(threads, iter(faults))
    finally:
        for thread in threads:
            thread.stop()


def choices(**options: Any) -> list[GenerationRequest]:
    """Three answers to one prompt, of different lengths."""
    return [
        GenerationRequest(
            f"c{i}",
            (5, 9, 11, 5, 9),
            12 + 5 * i,
            SamplingParams(seed=40 + i, temperature=0.9, logprobs=2, presence_penalty=0.3),
            leader_id="c0" if i else None,
            ignore_eos=True,
            **options,
        )
        for i in range(3)
    ]


@dataclass
class Said:
    ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    ends: tuple[str | None, ...] = ()
    num_prompt_tokens: int = 0


async def listen(
    client: ResumingClient, requests: Sequence[GenerationRequest]
) -> tuple[dict[str, Said], dict[str, Emission]]:
    said = {request.sequence_id: Said() for request in requests}
    last: dict[str, Emission] = {}
    async for emissions in client.generate(requests, Route("session")):
        assert emissions
        for each in emissions:
            so_far = said[each.sequence_id]
            said[each.sequence_id] = Said(
                so_far.ids + each.token_ids,
                so_far.text + each.text,
                so_far.logprobs + each.logprobs,
                (*so_far.ends, each.finish_reason),
                each.num_prompt_tokens,
            )
            last[each.sequence_id] = each
    return said, last


def undisturbed(requests: Sequence[GenerationRequest]) -> dict[str, Said]:
    with replicas() as targets:
        said, _ = asyncio.run(listen(ResumingClient(targets, SOON), requests))
    return said
