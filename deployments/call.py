"""One HTTP request as the engine's requests: one per prompt and choice."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.tenants.tenant import Tenant
from deployments.errors import invalid
from deployments.model_card import ModelCard
from deployments.openai_schema import ChatBody, CompletionBody, GenerationBody
from deployments.prompts import too_long
from deployments.route import beginning_of, session_of
from engine.noise import choice_seed
from engine.request import GenerationRequest, SamplingParams, SpeculationOptions

DEFAULT_COMPLETION_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Call:
    """`requests[p * num_choices + c]` is choice c of prompt p; `session` its conversation."""

    call_id: str
    created_s: int
    card: ModelCard
    num_choices: int
    requests: tuple[GenerationRequest, ...]
    session: str = ""

    @property
    def index(self) -> dict[str, int]:
        """Of each sequence, its place among the answer's choices."""
        return {request.sequence_id: i for i, request in enumerate(self.requests)}


def build_call(
    prefix: str,
    body: GenerationBody,
    prompts: Sequence[Sequence[int]],
    card: ModelCard,
    tenant: Tenant,
) -> Call:
    """Raises ApiError or InvalidRequestError, naming the parameter."""
    longest = min(card.max_sequence_length, tenant.kv_quota_tokens or card.max_sequence_length)
    call_id = f"{prefix}-{secrets.token_hex(16)}"
    seed = secrets.randbits(63) if body.seed is None else body.seed
    requests = []
    for prompt_index, prompt in enumerate(prompts):
        leader_id = f"{call_id}-{prompt_index}-0"
        for choice in range(body.num_choices):
            requests.append(
                GenerationRequest(
                    sequence_id=f"{call_id}-{prompt_index}-{choice}",
                    prompt_ids=tuple(prompt),
                    max_tokens=_max_tokens(body, len(prompt), longest),
                    tenant=tenant.name,
                    weight=tenant.weight,
                    kv_quota_tokens=tenant.kv_quota_tokens,
                    sampling=_sampling(body, choice_seed(seed, choice), card.vocab_size),
                    stop=tuple(body.stop or ()),
                    stop_token_ids=_stop_token_ids(body, card.vocab_size),
                    ignore_eos=bool(body.ignore_eos),
                    speculation=_speculation(body),
                    leader_id=leader_id if choice else None,
                    priority=body.priority or 0,
                )
            )
    session = session_of(requests[0].tenant, _conversation(body, prompts))
    return Call(call_id, int(time.time()), card, body.num_choices, tuple(requests), session)


def _conversation(body: GenerationBody, prompts: Sequence[Sequence[int]]) -> Sequence[object]:
    """What stays as a conversation goes on: the client's own key, else how it began."""
    if body.prompt_cache_key is not None:
        return ["key", body.prompt_cache_key]
    return ["text", *(body.beginning if isinstance(body, ChatBody) else beginning_of(prompts[0]))]


def _max_tokens(body: GenerationBody, num_prompt_tokens: int, max_sequence_length: int) -> int:
    """What was asked for; else what OpenAI gives: 16 for completions, all that fits for chats."""
    room = max_sequence_length - num_prompt_tokens
    parameter, asked = "max_tokens", body.max_tokens
    if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
        parameter, asked = "max_completion_tokens", body.max_completion_tokens
    if asked is None:
        asked = room if isinstance(body, ChatBody) else min(DEFAULT_COMPLETION_TOKENS, room)
    if asked > room or room < 1:
        raise too_long(parameter, num_prompt_tokens + max(asked, 1), max_sequence_length)
    if (body.min_tokens or 0) > asked:
        raise invalid("min_tokens", f"min_tokens: more than {parameter}, which is {asked}")
    return asked


def _sampling(body: GenerationBody, seed: int, vocab_size: int) -> SamplingParams:
    given = {name: getattr(body, name) for name in _SAMPLING_FIELDS}
    _check_ids("logit_bias", body.logit_bias or (), vocab_size)
    return SamplingParams(
        seed=seed,
        logprobs=_num_logprobs(body),
        **{name: value for name, value in given.items() if value is not None},
    )


_SAMPLING_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "min_tokens",
)


def _num_logprobs(body: GenerationBody) -> int | None:
    if isinstance(body, CompletionBody):
        return body.logprobs
    if isinstance(body, ChatBody) and body.logprobs:
        return body.top_logprobs or 0
    return None


def _stop_token_ids(body: GenerationBody, vocab_size: int) -> tuple[int, ...]:
    ids = tuple(body.stop_token_ids or ())
    _check_ids("stop_token_ids", ids, vocab_size)
    return ids


def _check_ids(
    parameter: str, ids: Sequence[int] | dict[int, float] | tuple[()], size: int
) -> None:
    for token_id in ids:
        if not 0 <= token_id < size:
            message = f"{parameter}: token ids are from 0 to {size - 1}, not {token_id}"
            raise invalid(parameter, message, "invalid_value")


def _speculation(body: GenerationBody) -> SpeculationOptions:
    asked = body.hedgerow
    if asked is None:
        return SpeculationOptions()
    return SpeculationOptions(
        drafters=None if asked.drafters is None else tuple(asked.drafters),
        max_draft_length=asked.max_draft_length,
        selector=asked.selector,
    )
