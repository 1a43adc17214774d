"""What the HTTP routes work with: the tokenizer, the target, the limits.

Takes a checked body to the rounds of a call; knows no HTTP but the request that it watches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from cluster.settings import IngressSettings, Limits, Resume
from cluster.tenants.tenant import Tenant
from deployments.call import Call, build_call
from deployments.errors import ApiError, OverloadedError, invalid
from deployments.metric_families import Family, store_families, target_families
from deployments.model_card import ModelCard
from deployments.openai_schema import ChatBody, CompletionBody, GenerationBody
from deployments.prompts import chat_prompt, check_prompts, completion_prompts
from deployments.refusal import RefusedError
from deployments.resume import ResumingClient
from deployments.route import Route
from deployments.target_client import CONTROL_TIMEOUT_S, TargetClient
from deployments.target_counters import TargetCounters
from deployments.watch import watched
from engine.request import Emission
from engine.text import Text

NUM_TOKENIZER_THREADS = 2
READY_S = 1.0
B = TypeVar("B")
Rounds = AsyncGenerator[Sequence[Emission], None]


class Gateway:
    """Its settings may be replaced at any time; a request keeps those it started with."""

    def __init__(
        self, target: TargetClient, text: Text, limits: Limits, resume: Resume | None = None
    ) -> None:
        self.target = target
        self._answers = ResumingClient(target, resume or Resume())
        self.text = text
        self.limits = limits
        self._card: ModelCard | None = None
        self._ready_s = float("-inf")
        self._threads = ThreadPoolExecutor(NUM_TOKENIZER_THREADS, "tokenizer")

    def apply(self, settings: IngressSettings) -> None:
        self.limits = settings.limits
        self._answers.settings = settings.resume

    @property
    def slow_client_timeout_s(self) -> float:
        return self._answers.settings.slow_client_timeout_s

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    async def ready_card(self) -> ModelCard:
        """Asks the target, even if it answered before. Raises ApiError 503 if it does not."""
        try:
            self._card = await asyncio.wait_for(self.target.describe(), CONTROL_TIMEOUT_S)
            return self._card
        except Exception as error:
            message = "the model is not loaded yet"
            raise ApiError(503, message, None, "not_ready", retry_after_s=1) from error

    async def check_ready(self) -> None:
        """As `ready_card`, but the target is asked once a second at most."""
        if time.monotonic() - self._ready_s > READY_S:
            await self.ready_card()
            self._ready_s = time.monotonic()

    async def card(self) -> ModelCard:
        """What the target said first: it stays the same until everything restarts."""
        return self._card or await self.ready_card()

    async def counters(self) -> list[TargetCounters]:
        """Of every target replica; of none while none answers."""
        try:
            return await self.target.counters()
        except Exception:
            return []

    async def selectors(self) -> list[dict[str, Any]]:
        """As `counters`, what they choose from."""
        try:
            return await self.target.selectors()
        except Exception:
            return []

    async def metrics(self) -> list[Family]:
        """Of every replica that answers."""
        targets = await self.counters()
        found = [family for target in targets for family in target_families(target)]
        try:
            health = await asyncio.wait_for(self.target.store_health(), CONTROL_TIMEOUT_S)
        except Exception:
            return found
        return [*found, *store_families(health)]

    async def chat_call(self, body: ChatBody, tenant: Tenant) -> Call:
        card = await self._card_for(body.model)
        self._check_choices(1, body)
        prompts = await self._in_thread(chat_prompt, body)
        self._check_prompts(prompts, "messages", card)
        return build_call("chatcmpl", body, prompts, card, tenant)

    async def completion_call(self, body: CompletionBody, tenant: Tenant) -> Call:
        card = await self._card_for(body.model)
        self._check_choices(len(body.prompt), body)
        prompts = await self._in_thread(completion_prompts, body)
        self._check_prompts(prompts, "prompt", card)
        return build_call("cmpl", body, prompts, card, tenant)

    def timeout_s(self, body: GenerationBody) -> float:
        """Until the last token: the limit, or less if the request has a deadline of its own."""
        asked = None if body.hedgerow is None else body.hedgerow.timeout_s
        return min(self.limits.request_timeout_s, asked or self.limits.request_timeout_s)

    async def start(self, call: Call, request: Request, timeout_s: float) -> Rounds:
        """The rounds of `call`; returns when the target has taken it, raises if it refuses."""
        rounds = watched(
            self._answers.generate(call.requests, Route(call.session)), request, timeout_s
        )
        try:
            first = await anext(rounds)
        except RefusedError as error:
            raise _refused(error) from error
        return _with_first(first, rounds)

    async def _card_for(self, model: str) -> ModelCard:
        card = await self.card()
        if model != card.model:
            message = f"model: {model!r} does not exist; this server has {card.model!r}"
            raise ApiError(404, message, "model", "model_not_found")
        return card

    async def _in_thread(
        self, tokenize: Callable[[Text, B], list[list[int]]], body: B
    ) -> list[list[int]]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, tokenize, self.text, body)

    def _check_choices(self, num_prompts: int, body: GenerationBody) -> None:
        """Before any text is tokenized."""
        limit = self.limits.max_choices
        if num_prompts * body.num_choices > limit:
            raise invalid("n", f"n: at most {limit} choices over all prompts", "invalid_value")

    def _check_prompts(
        self, prompts: Sequence[Sequence[int]], parameter: str, card: ModelCard
    ) -> None:
        most = card.max_sequence_length - 1
        max_prompt_tokens = min(most, self.limits.max_prompt_tokens or most)
        check_prompts(prompts, parameter, card.vocab_size, max_prompt_tokens)


def _refused(error: RefusedError) -> ApiError:
    refusal = error.refusal
    if refusal.kind == "full":
        return OverloadedError(refusal.message)
    return invalid(refusal.parameter, refusal.message, "invalid_value")


async def _with_first(first: Sequence[Emission], rounds: Rounds) -> Rounds:
    try:
        yield first
        async for emissions in rounds:
            yield emissions
    except RefusedError as error:  # by the target that was to go on with it
        raise _refused(error) from error
    finally:
        await rounds.aclose()
