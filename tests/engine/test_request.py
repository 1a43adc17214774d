"""Requests are checked when they are made; what they report adds up."""

from __future__ import annotations

import math

import pytest

from engine.errors import InvalidRequestError
from engine.request import (
    DrafterUse,
    GenerationRequest,
    SamplingParams,
    SpeculationUse,
)
from engine.usage import Usage

RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_k": (0, 2**31),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.01, 100.0),
    "min_tokens": (0, 2**31),
    "seed": (-(2**63), 2**64 - 1),
    "logprobs": (0, 20),
}


@pytest.mark.parametrize(("name", "limits"), RANGES.items())
def test_a_sampling_parameter_may_be_at_its_limits(name: str, limits: tuple[float, float]) -> None:
    for value in limits:
        assert getattr(SamplingParams(**{name: value}), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "limits"), RANGES.items())
def test_a_sampling_parameter_beyond_its_limits_is_refused_by_name(
    name: str, limits: tuple[float, float]
) -> None:
    step = 2**20 if name == "seed" else 1  # more than float rounding at 2^64
    for value in (limits[0] - step, limits[1] + step, math.nan, math.inf, -math.inf):
        with pytest.raises(InvalidRequestError, match=name) as caught:
            SamplingParams(**{name: value})  # type: ignore[arg-type]
        assert caught.value.parameter == name


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.1, math.nan])
def test_top_p_is_above_zero_and_at_most_one(top_p: float) -> None:
    with pytest.raises(InvalidRequestError, match="top_p"):
        SamplingParams(top_p=top_p)


@pytest.mark.parametrize("bias", [-100.5, 101.0, math.nan])
def test_logit_bias_beyond_100_is_refused(bias: float) -> None:
    with pytest.raises(InvalidRequestError, match="logit_bias"):
        SamplingParams(logit_bias={3: bias})


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("prompt", {"prompt_ids": ()}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": -5}),
        ("stop", {"stop": ("ok", "")}),
    ],
)
def test_an_impossible_request_is_refused_by_name(name: str, fields: dict[str, object]) -> None:
    valid: dict[str, object] = {"sequence_id": "a", "prompt_ids": (1,), "max_tokens": 1}
    GenerationRequest(**valid)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError) as caught:
        GenerationRequest(**{**valid, **fields})  # type: ignore[arg-type]
    assert caught.value.parameter == name


def test_mean_acceptance_length_counts_the_bonus_token() -> None:
    assert SpeculationUse(num_rounds=4, num_emitted_tokens=10).mean_acceptance_length == 2.5
    assert SpeculationUse(num_rounds=4, num_emitted_tokens=4).mean_acceptance_length == 1.0
    assert SpeculationUse().mean_acceptance_length == 1.0


def test_usage_adds_up_by_drafter() -> None:
    usage = Usage()
    usage.add(None, 0, 0, 1)
    usage.add("lookup", 4, 2, 3)
    frozen = usage.snapshot()
    usage.add("lookup", 3, 0, 1)
    usage.add("suffix", 2, 2, 3)
    use = usage.snapshot()
    assert use.per_drafter == {"lookup": DrafterUse(2, 7, 2), "suffix": DrafterUse(1, 2, 2)}
    assert (use.num_rounds, use.num_emitted_tokens) == (4, 8)
    assert (use.num_draft_tokens, use.num_accepted_tokens) == (9, 4)
    assert frozen.per_drafter == {"lookup": DrafterUse(1, 4, 2)}
