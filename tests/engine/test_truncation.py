"""The tokens that top_k, min_p and top_p keep, ties and rounding included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from numpy.typing import NDArray
from reference_sampling import (
    FULL_VOCAB,
    LOGITS,
    PARAMS,
    TooClose,
    checked,
    every_full_row,
    reference_kept,
)

from engine.request import SamplingParams
from engine.sampling import truncate


@checked
@given(logits=LOGITS, params=PARAMS)
def test_the_tokens_kept_are_those_of_the_definition(
    logits: list[float], params: SamplingParams
) -> None:
    params = replace(params, temperature=1.0)
    row = np.array(logits, dtype=np.float32)
    scaled = row - row.max()  # may make equal what differs by less than float32 holds
    kept = truncate(scaled, params)
    try:
        expected = reference_kept(scaled.tolist(), params)
    except TooClose:
        assume(False)
    if kept is None:
        assert len(expected) == len(logits)
    else:
        assert kept.tolist() == sorted(expected)


def kept_of(logits: Sequence[float], **options: float) -> list[int]:
    row = np.array(logits, dtype=np.float32)
    kept = truncate(row - row.max(), SamplingParams(**options))  # type: ignore[arg-type]
    assert kept is not None
    return [int(token) for token in kept]


@pytest.mark.parametrize(("top_p", "size"), [(0.125, 1), (0.25, 2), (0.5, 4), (0.51, 5), (0.9, 8)])
def test_top_p_keeps_exactly_the_tokens_that_reach_it(top_p: float, size: int) -> None:
    assert kept_of([1.0] * 8, top_p=top_p) == list(range(size))


def test_top_p_always_keeps_the_likeliest_token() -> None:
    assert kept_of([0.0, 9.0, 1.0], top_p=5e-324) == [1]


def test_top_k_keeps_the_lowest_ids_of_equals_at_its_edge() -> None:
    assert kept_of([1.0, 3.0, 1.0, 2.0, 1.0], top_k=3) == [0, 1, 3]
    assert kept_of([1.0, 3.0, 1.0, 2.0, 1.0], top_k=4) == [0, 1, 2, 3]


def test_min_p_is_relative_to_the_likeliest_token() -> None:
    logits = [math.log(p) for p in (0.5, 0.26, 0.24)]
    assert kept_of(logits, min_p=0.5) == [0, 1]
    assert kept_of(logits, min_p=1.0) == [0]


def test_top_p_counts_only_the_mass_that_top_k_and_min_p_left() -> None:
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert kept_of(logits, top_p=0.55) == [0, 1]
    assert kept_of(logits, top_k=2, top_p=0.55) == [0]
    assert kept_of(logits, min_p=0.6, top_p=0.55) == [0]


def test_top_k_of_the_whole_vocabulary_or_more_keeps_everything() -> None:
    row = np.zeros(8, dtype=np.float32)
    assert truncate(row, SamplingParams(top_k=8)) is None
    assert truncate(row, SamplingParams(top_k=9)) is None


@every_full_row
@pytest.mark.parametrize("top_k", [1, 2, 50, 1000, FULL_VOCAB - 1])
def test_top_k_of_the_full_vocabulary_equals_sorting_it(
    row: NDArray[np.float32], top_k: int
) -> None:
    ranked = np.argsort(-row, kind="stable")[:top_k]
    kept = truncate(row - row.max(), SamplingParams(top_k=top_k))
    np.testing.assert_array_equal(kept, np.sort(ranked))


@every_full_row
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999])
def test_top_p_of_the_full_vocabulary_equals_sorting_it(
    row: NDArray[np.float32], top_p: float
) -> None:
    scaled = row - row.max()
    ranked = np.argsort(-scaled, kind="stable")
    mass = np.cumsum(np.exp(scaled[ranked]), dtype=np.float64)
    size = int(np.searchsorted(mass, top_p * mass[-1])) + 1
    kept = truncate(scaled, SamplingParams(top_p=top_p))
    assert kept is not None
    assert abs(kept.size - size) <= FULL_VOCAB * 1e-5  # sums in another order round otherwise
    np.testing.assert_array_equal(kept, np.sort(ranked[: kept.size]))
