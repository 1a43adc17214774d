"""The token drawn, and its log-probabilities, against the definition on generated distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_sampling import (
    FULL_VOCAB,
    LOGITS,
    PARAMS,
    VOCAB,
    TooClose,
    checked,
    every_full_row,
    reference_processed,
    reference_token,
    sampler_after,
)

from engine.noise import gumbel, hash_noise, spread
from engine.reduced_vocabulary import ReducedVocabulary
from engine.request import SamplingParams
from engine.sampling import TokenSampler, log_probs_of


@checked
@given(
    logits=LOGITS,
    params=PARAMS,
    position=st.integers(0, 10_000),
    prompt=st.lists(st.integers(0, 1), max_size=4),
    generated=st.lists(st.integers(0, 1), max_size=4),
    masked=st.sets(st.integers(0, 1), max_size=1),
)
def test_every_token_is_the_one_that_the_definition_gives(
    logits: list[float],
    params: SamplingParams,
    position: int,
    prompt: list[int],
    generated: list[int],
    masked: set[int],
) -> None:
    row = np.array(logits, dtype=np.float32)
    values = reference_processed(row.tolist(), params, prompt, generated, masked)
    assume(max(values) > -1e8)
    try:
        expected = reference_token(values, params, position)
    except TooClose:
        assume(False)
    before = row.copy()
    sampler = sampler_after(params, prompt, generated, sorted(masked))
    assert sampler.sample(row, position) == expected
    np.testing.assert_array_equal(row, before)


@checked
@given(
    logits=LOGITS,
    params=PARAMS,
    keeps=st.lists(st.booleans(), min_size=VOCAB, max_size=VOCAB),
    prompt=st.lists(st.integers(0, 1), max_size=4),
    generated=st.lists(st.integers(0, 1), max_size=4),
    masked=st.sets(st.integers(0, 1), max_size=1),
)
def test_of_a_reduced_vocabulary_it_draws_as_if_all_else_were_impossible(
    logits: list[float],
    params: SamplingParams,
    keeps: list[bool],
    prompt: list[int],
    generated: list[int],
    masked: set[int],
) -> None:
    ids = [i for i in range(len(logits)) if keeps[i]]
    assume(ids)
    vocabulary = ReducedVocabulary(ids, len(logits))
    part = np.array(logits, dtype=np.float32)[ids]
    (row,) = vocabulary.expand(part[None])
    values = reference_processed(row.tolist(), params, prompt, generated, masked)
    assume(max(values) > -1e8)
    sampler = sampler_after(params, prompt, generated, sorted(masked))
    for position in range(4):
        assert sampler.sample(part, position, vocabulary) == sampler.sample(row, position)


@every_full_row
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_drawing_few_logarithms_gives_the_token_that_drawing_all_gives(
    row: NDArray[np.float32], temperature: float
) -> None:
    sampler = TokenSampler(SamplingParams(temperature=temperature, seed=3), ())
    tokens = spread(np.arange(FULL_VOCAB))
    scaled = (row - row.max()) / np.float32(temperature)
    for position in range(40):
        brute = int((scaled + gumbel(hash_noise(3, position, tokens))).argmax())
        assert sampler.sample(row, position) == brute


def test_sampling_changes_no_state() -> None:
    sampler = sampler_after(SamplingParams(frequency_penalty=1.0, seed=8), (), (1,))
    row = np.zeros(50, dtype=np.float32)
    first = [sampler.sample(row, position) for position in range(30)]
    assert [sampler.sample(row, position) for position in reversed(range(30))] == first[::-1]


def test_a_read_only_row_is_sampled_under_every_option() -> None:
    row = np.zeros(8, dtype=np.float32)
    row.flags.writeable = False
    params = SamplingParams(
        presence_penalty=1.0, repetition_penalty=1.2, logit_bias={1: 1.0}, min_tokens=2, top_p=0.9
    )
    assert 0 <= sampler_after(params, (1,), (2,), (0,)).sample(row, 3) < 8


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-46, 1e-40, 1e-20, 1e-6])
@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_a_vanishing_temperature_is_greedy(temperature: float, options: dict[str, float]) -> None:
    params = SamplingParams(temperature=temperature, **options)  # type: ignore[arg-type]
    row = np.array([0.0, -40.0, 3.0, 2.99], dtype=np.float32)
    assert {TokenSampler(params, ()).sample(row, position) for position in range(50)} == {2}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, True),
        ({"top_k": 3, "top_p": 0.5, "min_p": 0.1, "seed": 4}, True),
        ({"min_tokens": 0}, True),
        ({"temperature": 0.1}, False),
        ({"presence_penalty": 0.1}, False),
        ({"frequency_penalty": 0.1}, False),
        ({"repetition_penalty": 1.1}, False),
        ({"logit_bias": {1: 1.0}}, False),
        ({"min_tokens": 1}, False),
    ],
)
def test_plain_greedy_is_what_the_argmax_alone_decides(
    params: dict[str, object], expected: bool
) -> None:
    options = SamplingParams(**{"temperature": 0.0, "masked_ids": (0,), **params})  # type: ignore[arg-type]
    assert TokenSampler(options, (1, 2)).is_plain_greedy is expected


def torch_log_softmax(row: NDArray[np.float32]) -> list[float]:
    import torch  # takes a second, which most tests here can do without

    values: list[float] = torch.log_softmax(torch.from_numpy(row).double(), -1).tolist()
    return values


@checked
@given(logits=LOGITS, num_top=st.integers(0, 20), data=st.data())
def test_log_probs_equal_those_of_torch(
    logits: list[float], num_top: int, data: st.DataObject
) -> None:
    token = data.draw(st.integers(0, len(logits) - 1))
    row = np.array(logits, dtype=np.float32)
    expected = torch_log_softmax(row)
    found = log_probs_of(row, token, num_top)
    assert found.token_id == token
    assert found.logprob == pytest.approx(expected[token], abs=1e-5, rel=1e-6)
    ranked = sorted(range(len(logits)), key=lambda i: (-row[i], i))[:num_top]
    assert [i for i, _ in found.top] == ranked
    assert [value for _, value in found.top] == pytest.approx(
        [expected[i] for i in ranked], abs=1e-5, rel=1e-6
    )


@every_full_row
def test_log_probs_of_the_full_vocabulary_equal_those_of_torch(row: NDArray[np.float32]) -> None:
    expected = torch_log_softmax(row)
    found = log_probs_of(row, 17, 20)
    assert found.logprob == pytest.approx(expected[17], abs=1e-5)
    assert [i for i, _ in found.top] == np.argsort(-row, kind="stable")[:20].tolist()
    assert [value for _, value in found.top] == pytest.approx(
        [expected[i] for i, _ in found.top], abs=1e-5
    )
