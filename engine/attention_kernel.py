"""Causal attention over paged keys and values on a CPU; a token's bits are its own.

The heads that share keys are computed together, a token at a time: nothing is copied, padded or
masked, and a key that a token must not see is not touched.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import intrinsic

from engine.cpu_kernels import Floats, Indices, compiled, exponential
from engine.vector_code import INDEX, VectorCode

LANES = 8  # numbers of a register: heads' dimensions come in multiples of them
_MOST_ROWS = 3  # queries of a tile: with four keys its sums fill the registers
_AHEAD = 8  # keys that the memory is asked for before they are read, and values meanwhile
_WIDE = 4  # vectors of values that are summed up together


def _typed_scores(
    context: Any, q: Any, num_rows: Any, k0: Any, k1: Any, k2: Any, k3: Any, dim: Any, out: Any,
    stride: Any,
) -> Any:  # fmt: skip
    """Of queries [rows, dim] at the address q with keys [dim] at four -> [4] at `out`, and so on.

    Rows of the output are `stride` numbers apart. A score is a sum of eight chains.
    """

    def generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        q, num_rows, *keys, dim, out, stride = arguments
        code, all_keys = VectorCode(build, LANES), range(len(keys))

        def tile(size: int) -> None:
            rows = [code.at(q, build.mul(dim, INDEX(row))) for row in range(size)]

            def grow(i: Any, sums: list[Any]) -> list[Any]:
                at = build.mul(i, INDEX(LANES))
                seen = [code.load(code.at(key, at)) for key in keys]
                asking = [code.load(code.at(row, at)) for row in rows]
                pairs = [(a, b) for a in asking for b in seen]
                return [code.fma(*pair, own) for pair, own in zip(pairs, sums, strict=True)]

            zeros = [code.zero for _ in rows for _ in all_keys]
            sums = code.loop(build.sdiv(dim, INDEX(LANES)), zeros, grow)
            for row in range(size):
                four = code.sums_of_four(sums[row * len(keys) : (row + 1) * len(keys)])
                code.store(four, code.at(out, build.mul(stride, INDEX(row))))

        code.choose(num_rows, range(1, _MOST_ROWS + 1), tile)
        return context.get_dummy_value()

    return types.none(*[types.intp] * 9), generate


def _typed_mix(
    context: Any, weights: Any, stride: Any, num_rows: Any, values: Any, apart: Any,
    num_values: Any, dim: Any, out: Any,
) -> Any:  # fmt: skip
    """Adds weights [rows, values] at an address @ values [values, dim] -> [rows, dim] at `out`.

    Rows of weights are `stride` numbers apart, values `apart`. In the order of the values.
    """

    def generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        weights, stride, num_rows, values, apart, num_values, dim, out = arguments
        code = VectorCode(build, LANES)

        def part(size: int, num_vectors: int, start: Any) -> list[Any]:
            offsets = [build.add(start, INDEX(LANES * vector)) for vector in range(num_vectors)]
            rows = [build.mul(dim, INDEX(row)) for row in range(size)]
            into = [code.at(out, row, offset) for row in rows for offset in offsets]

            def grow(i: Any, sums: list[Any]) -> list[Any]:
                value = code.at(values, build.mul(apart, i))
                seen = [code.load(code.at(value, offset)) for offset in offsets]
                each = [
                    code.spread(code.at(weights, i, build.mul(stride, INDEX(row))))
                    for row in range(size)
                ]
                pairs = [(weight, vector) for weight in each for vector in seen]
                return [code.fma(*pair, own) for pair, own in zip(pairs, sums, strict=True)]

            sums = code.loop(num_values, [code.load(place) for place in into], grow)
            for vector, place in zip(sums, into, strict=True):
                code.store(vector, place)
            return []

        def tile(size: int) -> None:
            wide, one = INDEX(_WIDE * LANES), INDEX(LANES)
            num_wide, rest = build.sdiv(dim, wide), build.sdiv(build.srem(dim, wide), one)
            done = build.mul(num_wide, wide)
            with build.if_then(build.icmp_signed(">", num_wide, INDEX(0))):
                code.loop(num_wide, [], lambda i, _: part(size, _WIDE, build.mul(i, wide)))
            with build.if_then(build.icmp_signed(">", rest, INDEX(0))):
                code.loop(rest, [], lambda i, _: part(size, 1, build.add(done, build.mul(i, one))))

        code.choose(num_rows, range(1, _MOST_ROWS + 1), tile)
        return context.get_dummy_value()

    return types.none(*[types.intp] * 8), generate


def _typed_fetch(context: Any, address: Any, num_bytes: Any) -> Any:
    """Asks the memory for what will be read."""

    def generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        address, num_bytes = arguments
        code, line = VectorCode(build, LANES), INDEX(64)

        def fetch(i: Any, _: list[Any]) -> list[Any]:
            code.prefetch(build.add(address, build.mul(i, line)))
            return []

        code.loop(build.sdiv(num_bytes, line), [], fetch)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp), generate


_fetch: Any = intrinsic(_typed_fetch)
_scores: Any = intrinsic(_typed_scores)
_mix: Any = intrinsic(_typed_mix)


@compiled
def _softmax(scores: Floats, scale: float) -> None:
    """exp((score - the largest) * scale) over their sum, in place."""
    largest, num_keys, factor = np.float32(-np.inf), len(scores), np.float32(scale)
    for j in range(num_keys):
        largest = max(largest, scores[j])
    for j in range(num_keys):
        scores[j] = exponential((scores[j] - largest) * factor)
    total = np.float32(0.0)
    for j in range(num_keys):
        total += scores[j]
    share = np.float32(1.0) / total
    for j in range(num_keys):
        scores[j] *= share


@partial(compiled, parallel=True)
def attend(
    q: Floats, keys: Floats, values: Floats, firsts: Indices, starts: Indices, nums_new: Indices,
    tables: Indices, scale: float, window: int, num_parts: int, out: Floats,
) -> None:  # fmt: skip
    """q [tokens, heads, dim] -> out, of the same shape; keys and values as cached.

    Span i has `nums_new[i]` tokens from row `firsts[i]` and position `starts[i]` on, in the blocks
    of `tables[i]`. A token sees the last `window` positions, its own included. A thread takes one
    of `num_parts` of a span's heads at a time.
    """
    block_size, num_kv_heads, dim = keys.shape[1:]
    num_sharing, apart = q.shape[1] // num_kv_heads, num_kv_heads * dim
    num_each = num_kv_heads // num_parts
    num_tiles = (num_sharing + _MOST_ROWS - 1) // _MOST_ROWS
    most = (num_sharing + num_tiles - 1) // num_tiles  # queries of a tile
    for item in prange(len(starts) * num_parts):
        span, first_group = item // num_parts, item % num_parts * num_each
        end, first_head = starts[span] + nums_new[span], first_group * num_sharing
        rows = np.empty(end, np.int64)
        for key in range(end):
            rows[key] = (tables[span, key // block_size] * block_size + key % block_size) * apart
        stride = end + 4
        scores = np.empty((num_each * num_sharing, stride), np.float32)
        q_at, keys_at, values_at = q.ctypes.data, keys.ctypes.data, values.ctypes.data
        for new in range(nums_new[span]):
            token, high = firsts[span] + new, starts[span] + new + 1
            low = max(0, high - window)
            own = (token * q.shape[1] + first_head) * dim * 4
            for key in range(low, high, 4):
                k0 = keys_at + (rows[key] + first_group * dim) * 4
                k1 = keys_at + (rows[min(key + 1, high - 1)] + first_group * dim) * 4
                k2 = keys_at + (rows[min(key + 2, high - 1)] + first_group * dim) * 4
                k3 = keys_at + (rows[min(key + 3, high - 1)] + first_group * dim) * 4
                if new == 0:
                    for soon in range(key, min(key + 4, high)):
                        later = rows[min(soon + _AHEAD, high - 1)]
                        _fetch(keys_at + (later + first_group * dim) * 4, num_each * dim * 4)
                        _fetch(values_at + (rows[soon] + first_group * dim) * 4, num_each * dim * 4)
                for group in range(num_each):
                    for head in range(group * num_sharing, (group + 1) * num_sharing, most):
                        size = min(most, (group + 1) * num_sharing - head)
                        into = scores.ctypes.data + (head * stride + key) * 4
                        asking, on = q_at + own + head * dim * 4, group * dim * 4
                        _scores(asking, size, k0 + on, k1 + on, k2 + on, k3 + on, dim, into, stride)
            for head in range(num_each * num_sharing):
                _softmax(scores[head, low:high], scale)
                out[token, first_head + head] = np.float32(0.0)
            key = low
            while key < high:
                size_of_run = min(high - key, block_size - key % block_size)
                for group in range(num_each):
                    value = values_at + (rows[key] + (first_group + group) * dim) * 4
                    for head in range(group * num_sharing, (group + 1) * num_sharing, most):
                        size = min(most, (group + 1) * num_sharing - head)
                        weights = scores.ctypes.data + (head * stride + key) * 4
                        into = out.ctypes.data + own + head * dim * 4
                        _mix(weights, stride, size, value, apart, size_of_run, dim, into)
                key += size_of_run
