"""Engines whose drafters may be on hosts, and what their requests say without a drafter."""

from __future__ import annotations

from collections.abc import Sequence

from tiny_models import ids_of, run_all, tiny_engine
from tiny_requests import request

from engine.drafters.drafter import Drafter, DraftRequest, ScoreRequest
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.engine import Engine
from engine.request import GenerationRequest, SamplingParams
from policies.fixed import FixedSelector

TEMPERATURES = (0.0, 0.7, 1.0) * 2
REQUESTS = tuple(request(i, temperature) for i, temperature in enumerate(TEMPERATURES))
LONG = tuple(request(i, temperature, max_tokens=60) for i, temperature in enumerate(TEMPERATURES))

_plain: dict[str, dict[str, tuple[int, ...]]] = {}


def plain(requests: Sequence[GenerationRequest]) -> dict[str, tuple[int, ...]]:
    """What these requests say without a drafter; asked for once."""
    if repr(requests) not in _plain:
        said = run_all(tiny_engine(), requests)
        _plain[repr(requests)] = {name: ids_of(emissions) for name, emissions in said.items()}
    return _plain[repr(requests)]


def engine_with(*drafters: Drafter, draft_length: int = 4) -> Engine:
    engine = tiny_engine(drafters)
    engine.use_selectors(FixedSelector(drafters[0].name, draft_length), {})
    return engine


def assert_exact(engine: Engine, requests: Sequence[GenerationRequest] = REQUESTS) -> int:
    """Token for token what plain decoding says; gives how many drafted tokens were accepted."""
    before = num_accepted(engine)
    found = run_all(engine, requests)
    assert {name: ids_of(emissions) for name, emissions in found.items()} == plain(requests)
    return num_accepted(engine) - before


def num_accepted(engine: Engine) -> int:
    return sum(use.num_accepted_tokens for use in engine.counters().per_drafter.values())


def draft_request(tokens: Sequence[int], draft_length: int = 4, name: str = "a") -> DraftRequest:
    return DraftRequest(name, "tenant", tokens, 1, SamplingParams(temperature=0.0), draft_length)


def score_request(tokens: Sequence[int], finished: bool = False, name: str = "a") -> ScoreRequest:
    return ScoreRequest(name, "tenant", tokens, 1, SamplingParams(temperature=0.0), finished)


def lookup(name: str = "lookup") -> PromptLookupDrafter:
    return PromptLookupDrafter(name, 8, 6, 1)
