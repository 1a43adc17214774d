"""An id may differ only where rounding alone decides: a near tie, or the very edge of a cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.excuse import MAX_GAP, Situation, is_excused
from engine.noise import gumbel, hash_noise, spread
from engine.request import SamplingParams
from engine.sampling import Row, TokenSampler

GREEDY = SamplingParams(temperature=0.0)
PROMPT = (5, 6, 7)


def row_of(**logits: float) -> NDArray[np.float32]:
    """A row of 32 logits; the others are far below."""
    row = np.full(32, -30.0, dtype=np.float32)
    for name, value in logits.items():
        row[int(name.removeprefix("t"))] = value
    return row


@pytest.mark.parametrize(("gap", "expected"), [(0.0, True), (9e-4, True), (1.1e-3, False)])
def test_greedy_candidates_may_differ_by_less_than_the_gap(gap: float, expected: bool) -> None:
    row = row_of(t3=1.0, t9=1.0 - gap)
    assert is_excused(row, Situation(PROMPT, (), GREEDY), 3, 9) is expected
    assert is_excused(row, Situation(PROMPT, (), GREEDY), 9, 3) is expected


def test_penalties_bias_and_the_end_mask_belong_to_the_score() -> None:
    row = row_of(t3=2.0, t9=1.0)
    biased = SamplingParams(temperature=0.0, logit_bias={9: 1.0})
    assert is_excused(row, Situation(PROMPT, (), biased), 3, 9)
    penalised = SamplingParams(temperature=0.0, presence_penalty=0.5, frequency_penalty=0.25)
    assert is_excused(row, Situation(PROMPT, (3, 3), penalised), 3, 9)
    assert not is_excused(row, Situation(PROMPT, (3,), penalised), 3, 9)
    repeated = SamplingParams(temperature=0.0, repetition_penalty=2.0)
    assert is_excused(row, Situation((3,), (), repeated), 3, 9)
    assert not is_excused(row, Situation((3, 9), (), repeated), 3, 9)
    masked = SamplingParams(temperature=0.0, min_tokens=1)
    tie = row_of(t3=1.0, t9=1.0)
    assert not is_excused(tie, Situation(PROMPT, (), masked, end_ids=(9,)), 3, 9)
    assert is_excused(tie, Situation(PROMPT, (4,), masked, end_ids=(9,)), 3, 9)


def noise_of(tokens: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    return gumbel(hash_noise(seed, len(PROMPT), spread(np.asarray(tokens))))


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize(("gap", "expected"), [(2e-4, True), (3e-3, False)])
def test_sampled_candidates_are_compared_with_their_noise(
    temperature: float, gap: float, expected: bool
) -> None:
    noise = noise_of((3, 9), seed=4)
    level = 1.0 + temperature * (float(noise[0] - noise[1]) + gap)
    row = row_of(t3=1.0, t9=level)
    params = SamplingParams(temperature=temperature, seed=4)
    assert is_excused(row, Situation(PROMPT, (), params), 3, 9) is expected


def test_a_token_that_is_cut_is_not_excused() -> None:
    row = row_of(t1=5.0, t3=4.0, t9=3.0)
    params = SamplingParams(temperature=1.0, top_k=2, seed=4)
    assert not is_excused(row, Situation(PROMPT, (), params), 3, 9)


def test_a_token_at_the_edge_of_a_cut_is_excused_if_it_wins_where_it_is_kept() -> None:
    row = row_of(t1=1.0 + 10 * MAX_GAP, t3=1.0, t9=1.0 - MAX_GAP / 2)  # 3 and 9 contend for top 2
    for seed in range(40):
        params = SamplingParams(temperature=1.0, top_k=2, seed=seed)
        noise = noise_of((1, 9), seed)
        wins = float(noise[1] - noise[0]) > MAX_GAP
        loses = float(noise[0] - noise[1]) > MAX_GAP
        if wins or loses:
            assert is_excused(row, Situation(PROMPT, (), params), 1, 9) is wins


def rise_to_win(draw: Callable[[float], int], rival: int) -> float:
    """How much the rival's logit must rise until it is drawn, by bisection."""
    low, high = 0.0, 64.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if draw(middle) == rival else (middle, high)
    return high


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_candidates_are_excused_just_where_the_sampler_turns_from_one_to_the_other(
    temperature: float,
) -> None:
    params = SamplingParams(
        temperature=temperature,
        presence_penalty=0.5,
        repetition_penalty=1.3,
        logit_bias={4: 1.5},
        seed=2,
    )
    answer = (4, 8, 8)
    situation = Situation(PROMPT, answer, params)
    sampler = TokenSampler(params, PROMPT)
    for token in answer:
        sampler.push(token)
    source = np.random.default_rng(8)
    for rival in range(32):
        row = source.normal(size=32).astype(np.float32) * 3

        def raised(rise: float, row: NDArray[np.float32] = row, rival: int = rival) -> Row:
            row = row.copy()
            row[rival] += np.float32(rise)
            return row

        def draw(rise: float, raised: Callable[[float], Row] = raised) -> int:
            return sampler.sample(raised(rise), situation.position)

        first = draw(0.0)
        if first == rival:
            continue
        rise = rise_to_win(draw, rival)
        assert is_excused(raised(rise), situation, first, rival)
        assert not is_excused(raised(rise + 0.02), situation, first, rival)
        assert not is_excused(raised(rise - 0.02), situation, first, rival)
