"""Counter-based Gumbel noise: a pure function of (seed, position, token), nothing else.

The hash is 32 bits wide and integer only, so it is the same wherever it runs; only the last step,
G = -log(-log1p(-x)) with x = (hash + 1/2) / 2^32, is floating point, and it is done in float64,
where every hash gives a finite value in [-3.14, 22.88].
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint32]
Floats = NDArray[np.float64]

_MASK64 = (1 << 64) - 1
_SPREAD = np.uint32(0x9E3779B1)  # odd, so that token -> token * _SPREAD is a bijection
_MIX_1 = np.uint32(0x85EBCA6B)
_MIX_2 = np.uint32(0xC2B2AE35)


def _mix64(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection on 64 bits."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def choice_seed(seed: int, index: int) -> int:
    """The seed of choice `index` of a request: 64 bits; choice 0 is not the seed itself."""
    return _mix64(_mix64(seed & _MASK64) ^ (index & _MASK64))


def spread(tokens: NDArray[np.integer]) -> Hashes:
    """First step of the hash, shared by all positions: token ids -> spread ids."""
    return tokens.astype(np.uint32) * _SPREAD


def key_of(seed: int, position: int) -> int:
    """64 bits that all hashes at a position have in common."""
    return _mix64(_mix64(seed & _MASK64) ^ position)


def hash_noise(seed: int, position: int, spread_tokens: Hashes) -> Hashes:
    """Uniform 32-bit hashes of (seed, position, token), for `spread(tokens)` of any shape."""
    key = key_of(seed, position)
    value = spread_tokens + np.uint32(key & 0xFFFFFFFF)
    shifted = value >> np.uint32(16)
    value ^= shifted
    value *= _MIX_1
    value += np.uint32(key >> 32)
    np.right_shift(value, np.uint32(13), out=shifted)
    value ^= shifted
    value *= _MIX_2
    np.right_shift(value, np.uint32(16), out=shifted)
    value ^= shifted
    return value


def gumbel(hashes: Hashes) -> Floats:
    """Standard Gumbel variates of the hashes, decreasing in the hash; finite for all 2^32."""
    uniform = (hashes.astype(np.float64) + 0.5) * 2.0**-32
    noise: Floats = -np.log(-np.log1p(-uniform))
    return noise


def largest_hash_above(level: float) -> int:
    """A hash bound: every hash whose Gumbel variate exceeds `level` is at most this (<= 2^32-1)."""
    if level < -4.0:  # below the smallest variate
        return 2**32 - 1
    tail = -math.expm1(-math.exp(-level))  # P(G > level)
    return min(2**32 - 1, math.ceil(tail * 2.0**32) + 1)
