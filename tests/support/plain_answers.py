"""What requests say without a drafter, and requests and drafters of every kind beside it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tiny_models import (
    ids_of,
    run_all,
    tiny_engine,
)
from tiny_requests import TRAINED, drafter, request

from engine.drafters.drafter import Drafter
from engine.request import Emission, GenerationRequest

OPTIONS: dict[str, dict[str, Any]] = {
    "nothing else": {},
    "penalties": {
        "presence_penalty": 0.6,
        "frequency_penalty": 0.4,
        "repetition_penalty": 1.3,
    },
    "top_k, top_p, min_p": {"top_k": 12, "top_p": 0.9, "min_p": 0.02},
    "logit_bias": {"logit_bias": {5: 3.0, 7: -100.0, 11: 1.5}},
    "log-probs": {"logprobs": 3},
    "min_tokens": {"min_tokens": 9},
}

_plain_answers: dict[str, list[Emission]] = {}


def plain_answer(asked: GenerationRequest, family: str = "llama") -> list[Emission]:
    """What the request says alone, with no drafter, in an engine of its own; asked for once."""
    key = f"{family} {asked!r}"
    if key not in _plain_answers:
        _plain_answers[key] = run_all(tiny_engine(family=family), [asked])[asked.sequence_id]
    return _plain_answers[key]


def text_of(emissions: Sequence[Emission]) -> str:
    return "".join(emission.text for emission in emissions)


def assert_same(emissions: Sequence[Emission], asked: GenerationRequest, family: str) -> None:
    plain = plain_answer(asked, family)
    assert ids_of(emissions) == ids_of(plain)
    assert text_of(emissions) == text_of(plain)
    assert emissions[-1].finish_reason == plain[-1].finish_reason
    logprobs = [entry for emission in emissions for entry in emission.logprobs]
    assert logprobs == [entry for emission in plain for entry in emission.logprobs]


def mixed_requests(num_requests: int, first: int = 500) -> list[GenerationRequest]:
    """Every option at every temperature, several tenants, shared prompts."""
    rng = random.Random(first)
    return [
        request(
            first + i,
            rng.choice((0.0, 0.7, 1.0)),
            tenant=rng.choice("ab"),
            max_tokens=rng.randint(1, 40),
            **rng.choice(list(OPTIONS.values())),
        )
        for i in range(num_requests)
    ]


def all_drafters(**options: Any) -> list[Drafter]:
    lookups = [drafter("prompt_lookup"), drafter("suffix")]
    return [*lookups, *(drafter(name, **options) for name in TRAINED)]
