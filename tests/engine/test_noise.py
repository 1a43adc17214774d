"""The noise is the documented function, finite everywhere, uniform, and independent."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from engine.noise import choice_seed, gumbel, hash_noise, largest_hash_above, spread

checked = settings(max_examples=300, deadline=None, derandomize=True)
SEEDS = st.integers(-(2**63), 2**64 - 1)
MASK32, MASK64 = 2**32 - 1, 2**64 - 1
LARGEST_HASH = 2**32 - 1


def hash_of(seed: int, position: int, token: int) -> int:
    return int(hash_noise(seed, position, spread(np.array([token])))[0])


def slow_mix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
    return value ^ (value >> 31)


def slow_hash(seed: int, position: int, token: int) -> int:
    """The same function in plain integers."""
    key = slow_mix64(slow_mix64(seed % 2**64) ^ position)
    value = (token * 0x9E3779B1 + key) & MASK32
    value = (value ^ (value >> 16)) * 0x85EBCA6B & MASK32
    value = (value + (key >> 32)) & MASK32
    value = (value ^ (value >> 13)) * 0xC2B2AE35 & MASK32
    return value ^ (value >> 16)


def gumbel_of(*hashes: int) -> list[float]:
    values: list[float] = gumbel(np.array(hashes, dtype=np.uint32)).tolist()
    return values


@pytest.mark.parametrize(
    ("seed", "position", "token", "expected"),
    [
        (0, 0, 0, 32397732),
        (0, 0, 1, 4206650789),
        (0, 1, 0, 2498028380),
        (1, 0, 0, 59971592),
        (7, 1000, 49151, 823059483),
        (-1, 5, 17, 3253231544),
        (2**63, 2**31, 262143, 1517558760),
    ],
)
def test_hashes_are_known(seed: int, position: int, token: int, expected: int) -> None:
    """A change here changes every sampled answer ever given for a seed."""
    assert hash_of(seed, position, token) == expected


def test_choice_seeds_are_known() -> None:
    assert [choice_seed(0, 0), choice_seed(0, 1), choice_seed(1, 0), choice_seed(-1, 0)] == [
        12035550249420947055,
        627405149472732430,
        6791897765849424158,
        6755974106381971767,
    ]


def test_gumbel_variates_are_known() -> None:
    assert gumbel_of(0, 2**31, LARGEST_HASH) == pytest.approx(
        [22.87385695841999, 0.36651292024576076, -3.129994640884816], abs=1e-14
    )


@checked
@given(seed=SEEDS, position=st.integers(0, 2**40), token=st.integers(0, 2**20))
def test_hash_equals_its_plain_integer_form(seed: int, position: int, token: int) -> None:
    assert hash_of(seed, position, token) == slow_hash(seed, position, token)


@checked
@given(seed=SEEDS, position=st.integers(0, 2**20))
def test_hash_of_a_token_does_not_depend_on_the_other_tokens(seed: int, position: int) -> None:
    whole = hash_noise(seed, position, spread(np.arange(300)))
    some = np.array([299, 3, 3, 120, 0])
    assert hash_noise(seed, position, spread(some)).tolist() == whole[some].tolist()


def test_hashing_leaves_its_argument_alone() -> None:
    spread_tokens = spread(np.arange(64))
    before = spread_tokens.copy()
    hash_noise(3, 4, spread_tokens)
    np.testing.assert_array_equal(spread_tokens, before)


@pytest.mark.parametrize("vocab_size", [49_152, 262_144])
@pytest.mark.parametrize("seed", [0, -(2**63), 2**64 - 1])
def test_noise_is_finite_and_in_range_over_the_full_vocabulary(vocab_size: int, seed: int) -> None:
    for position in (0, 1, 4095):
        hashes = hash_noise(seed, position, spread(np.arange(vocab_size)))
        assert (np.diff(np.sort(hashes)) > 0).all()  # a bijection of the token: no ties
        noise = gumbel(hashes)
        assert np.isfinite(noise).all()
        assert -3.14 <= noise.min() <= noise.max() <= 22.88


def test_noise_is_finite_at_the_extreme_hashes() -> None:
    hashes = [*range(1000), *range(2**31 - 500, 2**31 + 500), *range(2**32 - 1000, 2**32)]
    noise = np.array(gumbel_of(*hashes))
    assert np.isfinite(noise).all()
    assert -3.14 <= noise.min() <= noise.max() <= 22.88
    assert (np.diff(noise) < 0).all()


@checked
@given(first=st.integers(0, LARGEST_HASH), second=st.integers(0, LARGEST_HASH))
def test_noise_decreases_with_the_hash(first: int, second: int) -> None:
    low, high = sorted((first, second))
    noise = gumbel_of(low, high)
    assert noise[0] > noise[1] if low < high else noise[0] == noise[1]


@checked
@given(level=st.floats(-10.0, 30.0), others=st.lists(st.integers(0, LARGEST_HASH), max_size=20))
def test_no_hash_beyond_the_bound_exceeds_the_level(level: float, others: list[int]) -> None:
    bound = largest_hash_above(level)
    assert 0 <= bound <= LARGEST_HASH
    beyond = [h for h in (bound + 1, bound + 2, *others) if bound < h <= LARGEST_HASH]
    assert all(value <= level for value in gumbel_of(*beyond))


@checked
@given(level=st.floats(-3.0, 22.0))
def test_the_bound_is_tight(level: float) -> None:
    bound = largest_hash_above(level)
    assert gumbel_of(max(0, bound - 3))[0] > level or bound <= 3


@pytest.mark.parametrize("level", [-math.inf, -1e300, -5.0, 50.0, 800.0, math.inf])
def test_the_bound_is_defined_at_every_level(level: float) -> None:
    bound = largest_hash_above(level)
    assert bound == LARGEST_HASH if level < 0 else bound <= 2


def test_a_hash_exactly_at_the_level_is_within_the_bound() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**32, 2000, dtype=np.uint32)
    for value, level in zip(hashes.tolist(), gumbel(hashes).tolist(), strict=True):
        assert value <= largest_hash_above(np.nextafter(level, -np.inf))


def p_value_of_cells(cells: NDArray[np.integer], num_cells: int) -> float:
    return float(chisquare(np.bincount(cells, minlength=num_cells)).pvalue)


TOKENS = spread(np.arange(1 << 18))


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
@pytest.mark.parametrize("position", [0, 1, 4095])
def test_every_byte_of_the_hash_is_uniform_over_tokens(position: int, shift: int) -> None:
    byte = (hash_noise(11, position, TOKENS) >> np.uint32(shift)) & np.uint32(255)
    assert p_value_of_cells(byte.astype(np.intp), 256) > 1e-6


def at_positions(seed: int, token: int) -> NDArray[np.uint32]:
    one = spread(np.array([token]))
    return np.concatenate([hash_noise(seed, position, one) for position in range(20_000)])


def at_seeds(first: int, token: int) -> NDArray[np.uint32]:
    one = spread(np.array([token]))
    return np.concatenate([hash_noise(seed, 9, one) for seed in range(first, first + 20_000)])


@pytest.mark.parametrize("draw", [at_positions, at_seeds])
def test_hashes_are_uniform_over_positions_and_over_seeds(
    draw: Callable[[int, int], NDArray[np.uint32]],
) -> None:
    hashes = draw(5, 40_000)
    assert p_value_of_cells((hashes >> np.uint32(24)).astype(np.intp), 256) > 1e-6
    assert kstest(gumbel(hashes), "gumbel_r").pvalue > 1e-6


def top_nibbles(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> NDArray[np.intp]:
    nibble = np.uint32(28)
    return ((first >> nibble) * np.uint32(16) + (second >> nibble)).astype(np.intp)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((3, 100), (3, 101)),
        ((3, 100), (4, 100)),
        ((3, 100), (4, 101)),
        ((3, 100), (-3, 100)),
        ((0, 0), (0, 1)),
        ((0, 1), (1, 0)),
        ((3, 100), (3 + 2**32, 100)),
        ((3, 100), (choice_seed(3, 0), 100)),
    ],
)
def test_noise_is_independent_across_positions_and_seeds(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    cells = top_nibbles(hash_noise(*one, TOKENS), hash_noise(*other, TOKENS))
    assert p_value_of_cells(cells, 256) > 1e-6


@pytest.mark.parametrize("distance", [1, 2, 3, 16, 256, 4096])
def test_noise_is_independent_across_tokens(distance: int) -> None:
    hashes = hash_noise(21, 7, TOKENS)
    assert p_value_of_cells(top_nibbles(hashes[distance:], hashes[:-distance]), 256) > 1e-6


def test_the_winner_of_equal_tokens_is_uniform_over_the_vocabulary() -> None:
    tokens = spread(np.arange(64))
    winners = [
        int(hash_noise(seed, position, tokens).argmin())
        for seed in range(100)
        for position in range(200)
    ]
    assert p_value_of_cells(np.array(winners), 64) > 1e-6


def test_negative_and_64_bit_seeds_give_noise_of_their_own() -> None:
    seeds = [0, 1, -1, -2, 2**32, 2**32 + 1, -(2**63), 2**63 - 1, 2**64 - 3]
    rows = {tuple(hash_noise(seed, 0, spread(np.arange(8))).tolist()) for seed in seeds}
    assert len(rows) == len(seeds)


def test_a_negative_seed_is_its_64_bit_pattern() -> None:
    assert hash_of(-1, 3, 4) == hash_of(2**64 - 1, 3, 4)
    assert choice_seed(-1, 3) == choice_seed(2**64 - 1, 3)


def test_choice_seeds_are_distinct_64_bit_numbers() -> None:
    bases = [0, 1, 2, -1, 2**63, 12345]
    seeds = [choice_seed(seed, index) for seed in bases for index in range(2000)]
    assert len(set(seeds) | set(bases)) == len(seeds) + len(bases)
    assert all(0 <= seed <= MASK64 for seed in seeds)
