"""A slow sampler written from the definition, and what both samplers are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.noise import hash_noise, spread
from engine.request import SamplingParams
from engine.sampling import TokenSampler

VOCAB = 12
CLOSE = 1e-4  # what float32 may decide either way is not asked for
checked = settings(max_examples=300, deadline=None, derandomize=True)


class TooClose(Exception):
    """Rounding decides here."""


def clearly(left: float, right: float) -> bool:
    """Whether left >= right, if it is not a matter of rounding."""
    if left != right and abs(left - right) < CLOSE * max(1.0, abs(left)):
        raise TooClose
    return left >= right


def reference_noise(seed: int, position: int, token: int) -> float:
    x = (int(hash_noise(seed, position, spread(np.array([token])))[0]) + 0.5) / 2**32
    return -math.log(-math.log1p(-x))


def reference_processed(
    logits: Sequence[float],
    params: SamplingParams,
    prompt: Sequence[int],
    generated: Sequence[int],
    masked: Iterable[int],
) -> list[float]:
    """Penalties, then logit bias, then the mask, token by token."""
    values = list(logits)
    for token in range(len(values)):
        if token in prompt or token in generated:
            factor = params.repetition_penalty
            values[token] = values[token] / factor if values[token] > 0 else values[token] * factor
        count = generated.count(token)
        values[token] -= count * params.frequency_penalty
        values[token] -= (count > 0) * params.presence_penalty
        values[token] += params.logit_bias.get(token, 0.0)
        if token in masked and len(generated) < params.min_tokens:
            values[token] = -math.inf
    return values


def reference_kept(values: Sequence[float], params: SamplingParams) -> list[int]:
    """top_k, then min_p, then top_p; each step renormalises; equal values rank by id."""
    peak = max(values)
    weights = [math.exp((value - peak) / params.temperature) for value in values]
    ranked = sorted(range(len(values)), key=lambda token: (-values[token], token))
    if params.top_k:
        ranked = ranked[: params.top_k]
    ranked = [
        token
        for token in ranked
        if not params.min_p or clearly(weights[token] / weights[ranked[0]], params.min_p)
    ]
    needed = params.top_p * sum(weights[token] for token in ranked)
    kept: list[int] = []
    for token in ranked:
        if params.top_p < 1.0 and kept and clearly(sum(weights[t] for t in kept), needed):
            break
        kept.append(token)
    return kept


def reference_token(values: Sequence[float], params: SamplingParams, position: int) -> int:
    if params.temperature == 0.0:
        peak = max(values)
        if any(0 < peak - value < CLOSE for value in values):
            raise TooClose
        return min(token for token, value in enumerate(values) if value == peak)
    scores = {
        token: values[token] / params.temperature + reference_noise(params.seed, position, token)
        for token in reference_kept(values, params)
        if values[token] > -math.inf
    }
    first, *rest = sorted(scores, key=lambda token: -scores[token])
    if rest and scores[first] - scores[rest[0]] < CLOSE:
        raise TooClose
    return first


LOGITS = st.lists(
    st.integers(-24, 24).map(lambda n: n / 4)  # a grid, so that there are ties
    | st.sampled_from([-math.inf, -1e9, 0.0])
    | st.floats(-30, 30).map(lambda n: round(n, 4)),  # what differs still does after a shift
    min_size=2,
    max_size=VOCAB,
).filter(lambda values: max(values) > -1e9)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.25, 0.7, 1.0, 1.3, 2.0]),
    top_p=st.sampled_from([1.0, 1.0, 0.99, 0.9, 0.6, 0.31, 0.05]),
    top_k=st.sampled_from([0, 0, 1, 2, 3, 5, 11, 100]),
    min_p=st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.37, 1.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.5, -1.25, 2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.25, -0.5, 2.0]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.5, 0.5]),
    logit_bias=st.dictionaries(st.sampled_from([0, 1]), st.sampled_from([-100.0, -1.5, 2.0])),
    min_tokens=st.integers(0, 3),
    seed=st.integers(-(2**63), 2**64 - 1),
)


def sampler_after(
    params: SamplingParams,
    prompt: Sequence[int] = (),
    generated: Sequence[int] = (),
    masked: Sequence[int] = (),
) -> TokenSampler:
    sampler = TokenSampler(replace(params, masked_ids=tuple(masked)), prompt)
    for token in generated:
        sampler.push(token)
    return sampler


FULL_VOCAB = 49_152


def full_rows() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    normal = rng.normal(size=FULL_VOCAB)
    peaky = normal.copy()
    peaky[[17, 40_000]] += 30.0
    masked = normal * 3
    masked[rng.random(FULL_VOCAB) < 0.9] = -np.inf
    rows = {
        "flat": np.zeros(FULL_VOCAB),
        "nearly flat": normal * 0.01,
        "normal": normal,
        "like a model": normal * 2.5,
        "peaky": peaky,
        "one step down": np.where(np.arange(FULL_VOCAB) < 5, 0.0, -4.0),
        "just below the first try": np.where(np.arange(FULL_VOCAB) < 5, 0.0, -4.000001),
        "steep": -np.arange(FULL_VOCAB) / 100.0,
        "mostly masked": masked,
    }
    return {name: row.astype(np.float32) for name, row in rows.items()}


FULL_ROWS = full_rows()
every_full_row = pytest.mark.parametrize("row", FULL_ROWS.values(), ids=FULL_ROWS.keys())
