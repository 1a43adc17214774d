"""What kernels for a CPU share, and the small ones; compiled for the processor by Numba.

A step of a small model is limited by how fast weights are read, and by starting torch's operators.
Kernels read a weight once, as fast as the memory gives it, and a layer is a few calls. Float32
only; a row has the same bits in every batch.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding
import numba
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
_F = TypeVar("_F", bound=Callable[..., Any])

_REORDERED = {"reassoc", "contract", "arcp", "nsz"}  # NaN and infinity stay what they are
_settings = vars(numba.config)
_FILES = [f"{name}_kernel" for name in ("product", "attention", "layer")]
_FILES += ["cpu_kernels", "vector_code", "exact_bits"]
_ITEMS_AT_A_TIME = 2  # that a thread takes of a loop: who is held up by another process has few
_LOG2_E = np.float32(1.4426950408889634)
_LOWEST, _HIGHEST = np.float32(-126.0), np.float32(127.0)  # powers of two


def _keep_apart() -> None:
    """What is kept of compiled kernels, by the text of all: they are compiled into each other."""
    folder = Path(__file__).parent
    texts = b"".join((folder / f"{name}.py").read_bytes() for name in _FILES)
    kept = folder / "__pycache__" / f"kernels-{hashlib.sha256(texts).hexdigest()[:16]}"
    _settings["CACHE_DIR"] = str(kept)


_keep_apart()


def compiled(function: _F, parallel: bool = False) -> _F:
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
    """Whether kernels are as fast as meant: the processor has FMA, and TBB's threads are there.

    Numba's other layers cannot be used here: OpenMP's threads would fight torch's for the cores,
    and the third takes one caller only.
    """
    if not processor_has("fma"):
        return False
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


def processor_has(feature: str) -> bool:
    """By LLVM's name."""
    return bool(llvmlite.binding.get_host_cpu_features().get(feature, False))


def can_read(tensor: torch.Tensor) -> bool:
    """Whether kernels compute what is in a tensor like this one."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and are_there()


class Threads:
    """As many as torch has in the thread that makes this, for kernels that any thread calls."""

    def __init__(self) -> None:
        self._number = torch.get_num_threads()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Meanwhile torch's operators have one, if there are kernels.

        Torch's other threads would wait for more work in a loop, on the cores that kernels need.
        """
        before = torch.get_num_threads()
        if are_there():
            numba.set_num_threads(min(self._number, _settings["NUMBA_NUM_THREADS"]))
            numba.set_parallel_chunksize(_ITEMS_AT_A_TIME)
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def num_threads() -> int:
    """That kernels have which this thread calls."""
    return int(numba.get_num_threads())


@compiled
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


@compiled
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


@compiled
def exponential(x: Any) -> Any:
    """e**x of a float32, within two units of the last place; 0 is 2**-126, infinity 2**127."""
    x = x * _LOG2_E
    x = _LOWEST if x < _LOWEST else (_HIGHEST if x > _HIGHEST else x)  # and a NaN stays one
    whole = np.floor(x)
    rest = x - whole
    power = np.float32(1.540353104e-4)  # of 2**rest, by its Taylor-like polynomial
    power = power * rest + np.float32(1.339887440e-3)
    power = power * rest + np.float32(9.618437357e-3)
    power = power * rest + np.float32(5.550332548e-2)
    power = power * rest + np.float32(2.402264791e-1)
    power = power * rest + np.float32(6.931472028e-1)
    scale = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (power * rest + np.float32(1.0)) * scale
