"""What a step on a CPU does with few rows, compiled for the processor by Numba. Float32 only.

A step of a small model is limited by how fast weights are read, and by starting torch's operators.
Here a product with few rows reads its weight once, as fast as the memory gives it, and norms,
rotations and the attention of short spans are one call each. A row of norms, rotations and
attention has the same bits in every batch; a product's row has not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from importlib import metadata
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
_F = TypeVar("_F", bound=Callable[..., Any])

EPILOGUES = {"none": 0, "swish": 1, "mul": 2, "add": 3}
_OUTPUTS = 32  # of a product that a thread takes at a time
_REORDERED = {"reassoc", "contract", "arcp", "nsz"}  # NaN and infinity stay what they are
_settings = vars(numba.config)
_LOG2_E = np.float32(1.4426950408889634)


def _compiled(function: _F, parallel: bool = False) -> _F:
    """Compiled at its first call, and kept for later processes where there is a place to write."""
    form: Any = partial(
        njit, nogil=True, fastmath=_REORDERED, error_model="numpy", parallel=parallel
    )
    try:
        return cast(_F, form(cache=True)(function))
    except RuntimeError:
        return cast(_F, form()(function))


@cache
def are_there() -> bool:
    """Whether kernels can share their work among threads: TBB is installed where they run.

    Numba's other layers cannot be used here: OpenMP's threads would fight torch's for the cores,
    and the third takes one caller only.
    """
    try:
        files = metadata.files("tbb") or []
    except metadata.PackageNotFoundError:
        return False
    for file in files:
        if file.name == "libtbb.so.12":
            ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)  # no path leads Numba there
            _settings["THREADING_LAYER"] = "tbb"
            return True
    return False


def can_read(tensor: torch.Tensor) -> bool:
    """Whether kernels compute what is in a tensor like this one."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and are_there()


def use_threads_of_torch() -> None:
    """As many for kernels that this thread calls as torch's operators have."""
    if are_there():
        numba.set_num_threads(min(torch.get_num_threads(), _settings["NUMBA_NUM_THREADS"]))


@_compiled
def _finished(value: Any, epilogue: int, other: Any) -> Any:
    """Float32 all of them."""
    if epilogue == 1:
        return value / (np.float32(1.0) + np.exp(-value))
    if epilogue == 2:
        return value * other
    return value + other if epilogue == 3 else value


@partial(_compiled, parallel=True)
def multiply(
    x: Floats, weight: Floats, bias: Floats, epilogue: int, other: Floats, out: Floats
) -> None:
    """x [rows, inputs] @ weight.T [inputs, outputs] + bias, if that is not empty -> out.

    Then what one of EPILOGUES says, with `other`, which is as `out`, or `out` if it needs none.
    """
    num_rows, (num_outputs, num_inputs) = x.shape[0], weight.shape
    for part in prange((num_outputs + _OUTPUTS - 1) // _OUTPUTS):
        for column in range(part * _OUTPUTS, min(num_outputs, (part + 1) * _OUTPUTS)):
            weights = weight[column]
            start = bias[column] if len(bias) else np.float32(0.0)
            row = 0
            while row + 4 <= num_rows:
                x0, x1, x2, x3 = x[row], x[row + 1], x[row + 2], x[row + 3]
                a, b, c, d = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
                for i in range(num_inputs):
                    w = weights[i]
                    a += w * x0[i]
                    b += w * x1[i]
                    c += w * x2[i]
                    d += w * x3[i]
                for k, value in enumerate((a, b, c, d)):
                    beside = other[row + k, column]
                    out[row + k, column] = _finished(start + value, epilogue, beside)
                row += 4
            while row < num_rows:
                x0, a = x[row], np.float32(0.0)
                for i in range(num_inputs):
                    a += weights[i] * x0[i]
                out[row, column] = _finished(start + a, epilogue, other[row, column])
                row += 1


@_compiled
def rms_norm(x: Floats, weight: Floats, epsilon: float, out: Floats) -> None:
    """x [rows, size] / its root mean square * weight -> out."""
    num_rows, size = x.shape
    for row in range(num_rows):
        total = np.float32(0.0)
        for i in range(size):
            total += x[row, i] * x[row, i]
        factor = np.float32(1.0 / np.sqrt(total / np.float32(size) + np.float32(epsilon)))
        for i in range(size):
            out[row, i] = x[row, i] * factor * weight[i]


@_compiled
def rotate(heads: Floats, num_rotated: int, cosine: Floats, sine: Floats) -> None:
    """The first `num_rotated` of heads [tokens, heads, dim], in place, by angles [tokens, dim].

    The first half of `sine` is negative (see `fused_layers.exchanging`).
    """
    half = heads.shape[2] // 2
    for token in range(heads.shape[0]):
        for head in range(num_rotated):
            for i in range(half):
                low, high = heads[token, head, i], heads[token, head, half + i]
                heads[token, head, i] = low * cosine[token, i] + high * sine[token, i]
                heads[token, head, half + i] = (
                    high * cosine[token, half + i] + low * sine[token, half + i]
                )


@_compiled
def _softmax(scores: Floats, powers: NDArray[np.int32], scales: Floats) -> None:
    """exp(score - the largest) over their sum, in place. `scales` is `powers` seen as floats."""
    largest, num_keys = np.float32(-np.inf), len(scores)
    for j in range(num_keys):
        largest = max(largest, scores[j])
    for j in range(num_keys):
        x = max((scores[j] - largest) * _LOG2_E, np.float32(-126.0))
        whole = np.floor(x)
        rest = x - whole
        powers[j] = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23))
        power = np.float32(1.540353104e-4)  # of 2**rest, by its Taylor-like polynomial
        power = power * rest + np.float32(1.339887440e-3)
        power = power * rest + np.float32(9.618437357e-3)
        power = power * rest + np.float32(5.550332548e-2)
        power = power * rest + np.float32(2.402264791e-1)
        power = power * rest + np.float32(6.931472028e-1)
        scores[j] = power * rest + np.float32(1.0)
    total = np.float32(0.0)
    for j in range(num_keys):
        scores[j] *= scales[j]
        total += scores[j]
    factor = np.float32(1.0) / total
    for j in range(num_keys):
        scores[j] *= factor


@cache
def attention(
    num_kv_heads: int, num_sharing: int, dim: int, block_size: int
) -> Callable[..., None]:
    """Causal attention over paged keys and values for heads of this shape; see `attend`."""

    @partial(_compiled, parallel=True)
    def attend(
        q: Floats, keys: Floats, values: Floats, firsts: Indices, starts: Indices,
        nums_new: Indices, tables: Indices, scale: float, window: int, out: Floats,
    ) -> None:  # fmt: skip
        """q [tokens, heads, dim] -> out, of the same shape; keys and values as cached.

        Span i has `nums_new[i]` tokens from row `firsts[i]` and position `starts[i]` on, in the
        blocks of `tables[i]`. A token sees the last `window` positions, its own included.
        """
        for item in prange(len(starts) * num_kv_heads):
            span, group = item // num_kv_heads, item % num_kv_heads
            start, num_new, first = starts[span], nums_new[span], firsts[span]
            scores = np.empty((num_new * num_sharing, start + num_new), np.float32)
            powers = np.empty(start + num_new, np.int32)
            scales = powers.view(np.float32)
            for key in range(max(0, start + 1 - window), start + num_new):
                seen = keys[tables[span, key // block_size], key % block_size, group]
                for new in range(max(0, key - start), num_new):
                    for share in range(num_sharing):
                        asking = q[first + new, group * num_sharing + share]
                        score = np.float32(0.0)
                        for i in range(dim):
                            score += asking[i] * seen[i]
                        scores[new * num_sharing + share, key] = score * scale
            for new in range(num_new):
                low, high = max(0, start + new + 1 - window), start + new + 1
                for share in range(num_sharing):
                    _softmax(scores[new * num_sharing + share, low:high], powers, scales)
                    out[first + new, group * num_sharing + share] = np.float32(0.0)
            for key in range(max(0, start + 1 - window), start + num_new):
                seen = values[tables[span, key // block_size], key % block_size, group]
                for new in range(max(0, key - start), min(num_new, key - start + window)):
                    for share in range(num_sharing):
                        weight = scores[new * num_sharing + share, key]
                        into = out[first + new, group * num_sharing + share]
                        for i in range(dim):
                            into[i] += weight * seen[i]

    return attend
