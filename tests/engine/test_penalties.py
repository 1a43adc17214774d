"""Penalties, biases and masks change logits as their definitions say, and each fork its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reference_sampling import LOGITS, PARAMS, checked, reference_processed, sampler_after

from engine.request import SamplingParams


def greedy_after(
    logits: Sequence[float], params: Mapping[str, object], prompt: Sequence[int] = (),
    generated: Sequence[int] = (), masked: Sequence[int] = (),
) -> int:  # fmt: skip
    options = SamplingParams(temperature=0.0, **params)  # type: ignore[arg-type]
    sampler = sampler_after(options, prompt, generated, masked)
    return sampler.sample(np.array(logits, dtype=np.float32), len(prompt) + len(generated))


def test_ties_take_the_lowest_id() -> None:
    assert greedy_after([0.0, 2.0, 1.0, 2.0, 2.0], {}) == 1
    assert greedy_after([0.0, 2.0, 1.0, 2.5, 2.0], {"presence_penalty": 0.5}, (), (3,)) == 1


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_openai_penalties_see_generated_tokens_only(penalty: str) -> None:
    logits = [0.0, 1.0]
    assert greedy_after(logits, {penalty: 1.5}, prompt=(1, 1, 1)) == 1
    assert greedy_after(logits, {penalty: 1.5}, prompt=(1,), generated=(1,)) == 0


def test_repetition_penalty_sees_prompt_and_generated_tokens_once_each() -> None:
    assert greedy_after([1.0, 1.5], {"repetition_penalty": 2.0}, prompt=(1,)) == 0
    assert greedy_after([1.0, 1.5], {"repetition_penalty": 2.0}, generated=(1,)) == 0
    assert greedy_after([1.0, 2.5], {"repetition_penalty": 2.0}, (1, 1), (1, 1)) == 1


def test_repetition_penalty_lowers_negative_logits_too() -> None:
    assert greedy_after([-3.0, -2.0], {"repetition_penalty": 2.0}, prompt=(1,)) == 0
    assert greedy_after([-3.0, -4.0], {"repetition_penalty": 0.5}, prompt=(1,)) == 1


def test_frequency_penalty_grows_with_the_count_and_presence_penalty_does_not() -> None:
    assert greedy_after([0.0, 2.25], {"frequency_penalty": 1.0}, generated=(1, 1)) == 1
    assert greedy_after([0.0, 2.25], {"frequency_penalty": 1.0}, generated=(1, 1, 1)) == 0
    assert greedy_after([0.0, 1.25], {"presence_penalty": 1.0}, generated=(1,) * 9) == 1


def test_negative_penalties_favour_what_was_said() -> None:
    assert greedy_after([0.5, 0.0], {"presence_penalty": -1.0}, generated=(1,)) == 1
    assert greedy_after([0.5, 0.0], {"frequency_penalty": -0.3}, generated=(1, 1)) == 1


def test_logit_bias_is_added_after_the_penalties() -> None:
    params = {"repetition_penalty": 2.0, "logit_bias": {1: 1.0}}
    assert greedy_after([1.75, 2.0], params, prompt=(1,)) == 1  # (2 + 1) / 2 would lose
    assert greedy_after([0.0, 5.0], {"logit_bias": {1: -100.0}}) == 0


def test_end_tokens_are_masked_until_min_tokens_were_generated() -> None:
    for num_generated, expected in ((0, 0), (1, 0), (2, 1), (3, 1)):
        token = greedy_after([0.0, 9.0], {"min_tokens": 2}, (0,), (0,) * num_generated, (1,))
        assert token == expected


def test_the_mask_beats_the_logit_bias() -> None:
    assert greedy_after([0.0, 9.0], {"min_tokens": 1, "logit_bias": {1: 100.0}}, masked=(1,)) == 0


def test_a_masked_token_is_never_drawn_however_flat_the_row() -> None:
    sampler = sampler_after(SamplingParams(temperature=2.0, min_tokens=1), masked=(0, 2))
    row = np.zeros(4, dtype=np.float32)
    assert {sampler.sample(row, position) for position in range(200)} == {1, 3}


@checked
@given(
    logits=LOGITS,
    params=PARAMS,
    before=st.lists(st.integers(0, 1), max_size=3),
    left=st.lists(st.integers(0, 1), max_size=3),
    right=st.lists(st.integers(0, 1), max_size=3),
)
def test_a_fork_and_its_origin_do_not_see_each_others_tokens(
    logits: list[float],
    params: SamplingParams,
    before: list[int],
    left: list[int],
    right: list[int],
) -> None:
    row = np.array(logits, dtype=np.float32)
    origin = sampler_after(params, (1,), before, (0,))
    fork = origin.fork()
    for token in left:
        origin.push(token)
    for token in right:
        fork.push(token)
    for sampler, after in ((origin, left), (fork, right)):
        alone = sampler_after(params, (1,), before + after, (0,))
        assume(max(reference_processed(logits, params, (1,), before + after, (0,))) > -1e8)
        assert [sampler.sample(row, t) for t in range(5)] == [
            alone.sample(row, t) for t in range(5)
        ]


def test_a_fork_counts_for_itself() -> None:
    row = np.array([0.0, 1.5], dtype=np.float32)
    params = SamplingParams(temperature=0.0, frequency_penalty=1.0)
    origin = sampler_after(params)
    fork = origin.fork()
    fork.push(1)
    fork.push(1)
    assert (origin.sample(row, 0), fork.sample(row, 0)) == (1, 0)
    origin.push(1)
    assert origin.sample(row, 0) == 1
