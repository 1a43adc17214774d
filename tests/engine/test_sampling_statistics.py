"""The sampler draws from the processed distribution: chi-square over many positions and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from engine.noise import choice_seed
from engine.request import SamplingParams
from engine.sampling import TokenSampler

VOCAB = 96
POSITIONS_PER_SEED = 1000


def model_like_row(seed: int) -> NDArray[np.float32]:
    """Some likely tokens and a long tail, as a language model's; ties included."""
    row = np.random.default_rng(seed).normal(size=VOCAB) * 1.5
    row[40:44] = row[:40].max()
    return row.astype(np.float32)


def counts_of(
    row: NDArray[np.float32],
    params: SamplingParams,
    num_draws: int,
    generated: Sequence[int] = (),
    masked: Sequence[int] = (),
) -> NDArray[np.intp]:
    """How often each token comes, over many positions of each of many seeds."""
    counts = np.zeros(row.size, dtype=np.intp)
    for index in range(num_draws // POSITIONS_PER_SEED):
        options = {name: getattr(params, name) for name in params.__slots__}
        options |= {"seed": choice_seed(params.seed, index), "masked_ids": tuple(masked)}
        sampler = TokenSampler(SamplingParams(**options), ())
        for token in generated:
            sampler.push(token)
        for position in range(POSITIONS_PER_SEED):
            counts[sampler.sample(row, position)] += 1
    return counts


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(values - values.max())
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def p_value(counts: NDArray[np.intp], shares: NDArray[np.float64]) -> float:
    """Chi-square, the tokens expected fewer than 10 times taken together; 0 for the impossible."""
    expected = shares * counts.sum()
    if counts[shares == 0.0].any():
        return 0.0
    rare = expected < 10
    observed = np.append(counts[~rare], counts[rare].sum())
    predicted = np.append(expected[~rare], expected[rare].sum())
    if predicted[-1] < 1e-9:
        observed, predicted = observed[:-1], predicted[:-1]
    return float(chisquare(observed, predicted).pvalue)


def test_a_million_draws_follow_the_softmax() -> None:
    row = model_like_row(1)
    counts = counts_of(row, SamplingParams(seed=2024), 1_000_000)
    assert p_value(counts, softmax(row.astype(np.float64))) > 1e-6


def kept_shares(
    row: NDArray[np.float32],
    temperature: float = 1.0,
    top_k: int = VOCAB,
    min_p: float = 0.0,
    top_p: float = 1.0,
) -> NDArray[np.float64]:
    """The renormalised distribution by its definition, in float64."""
    shares = softmax(row.astype(np.float64) / temperature)
    ranked = np.argsort(-shares, kind="stable")
    shares[ranked[top_k:]] = 0.0
    shares[shares < min_p * shares.max()] = 0.0
    shares /= shares.sum()
    ranked = np.argsort(-shares, kind="stable")
    before = np.cumsum(shares[ranked]) - shares[ranked]
    shares[ranked[before >= top_p]] = 0.0
    result: NDArray[np.float64] = shares / shares.sum()
    return result


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 2.0, "min_p": 0.05},
        {"temperature": 0.6, "top_k": 20, "top_p": 0.9},
    ],
    ids=str,
)
def test_draws_follow_the_renormalised_distribution(options: dict[str, float]) -> None:
    row = model_like_row(2)
    params = SamplingParams(seed=7, **options)  # type: ignore[arg-type]
    counts = counts_of(row, params, 100_000)
    assert p_value(counts, kept_shares(row, **options)) > 1e-6  # type: ignore[arg-type]


def test_draws_follow_the_penalised_and_biased_distribution() -> None:
    row = model_like_row(3)
    params = SamplingParams(
        presence_penalty=0.5, frequency_penalty=0.25, logit_bias={5: 2.0, 6: -3.0}, min_tokens=9
    )
    counts = counts_of(row, params, 40_000, generated=(40, 40, 41), masked=(42,))
    values = row.astype(np.float64)
    values[[40, 41]] -= np.array([1.0, 0.75])
    values[[5, 6]] += np.array([2.0, -3.0])
    values[42] = -math.inf
    assert p_value(counts, softmax(values)) > 1e-6


def test_successive_tokens_of_a_sequence_are_independent() -> None:
    row = np.log(np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32))
    sampler = TokenSampler(SamplingParams(seed=5), ())
    tokens = np.array([sampler.sample(row, position) for position in range(20_001)])
    pairs = np.bincount(tokens[:-1] * 4 + tokens[1:], minlength=16)
    shares = softmax(row.astype(np.float64))
    assert p_value(pairs, np.outer(shares, shares).ravel()) > 1e-6


def test_two_choices_of_one_request_are_independent() -> None:
    row = np.log(np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32))
    first, second = (TokenSampler(SamplingParams(seed=choice_seed(5, i)), ()) for i in (0, 1))
    cells = [first.sample(row, t) * 4 + second.sample(row, t) for t in range(20_000)]
    shares = softmax(row.astype(np.float64))
    assert p_value(np.bincount(cells, minlength=16), np.outer(shares, shares).ravel()) > 1e-6


def test_the_chi_square_notices_a_slightly_wrong_temperature() -> None:
    row = model_like_row(2)
    counts = counts_of(row, SamplingParams(seed=7, temperature=1.1), 20_000)
    assert p_value(counts, kept_shares(row)) < 1e-6
