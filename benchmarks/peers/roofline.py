"""The most that this machine allows: weights read a step over bandwidth, operations over peak."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

FLOAT_BYTES = 4
NUM_READ = 2**27  # floats: 512 MiB, far beyond any cache
SIDE = 2048
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Roofline:
    """Of plain decoding with weights in float32: a step reads all once, however many streams."""

    num_weights: int
    read_bytes_per_s: float
    operations_per_s: float

    @property
    def bytes_per_step(self) -> int:
        return self.num_weights * FLOAT_BYTES

    def tokens_per_s(self, num_streams: int) -> float:
        """The lower of both limits; a token is a multiplication and an addition a weight."""
        by_memory = num_streams * self.read_bytes_per_s / self.bytes_per_step
        return min(by_memory, self.operations_per_s / (2 * self.num_weights))

    def sentence(self) -> str:
        limits = ", ".join(f"{self.tokens_per_s(n):.0f} with {n}" for n in (1, 8, 32))
        return (
            f"Memory is read at {self.read_bytes_per_s / 1e9:.1f} GB/s, a matrix product does "
            f"{self.operations_per_s / 1e9:.0f} GFLOP/s; a plain step reads "
            f"{self.bytes_per_step / 1e6:.0f} MB of weights. So the most that plain decoding with "
            f"weights held in float32 can give, in tokens/s by streams, is {limits}."
        )


def measure(model: Path, num_threads: int) -> Roofline:
    """The best of some repeats; the machine should do nothing else."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        values, square = torch.ones(NUM_READ), torch.ones(SIDE, SIDE)
        read_s = _best_s(lambda: values.sum())
        product_s = _best_s(lambda: torch.mm(square, square))
    finally:
        torch.set_num_threads(before)
    return Roofline(num_weights(model), NUM_READ * FLOAT_BYTES / read_s, 2 * SIDE**3 / product_s)


def _best_s(action: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def num_weights(model: Path) -> int:
    """Of all tensors in a model's folder."""
    total = 0
    for path in model.glob("*.safetensors"):
        with safe_open(path, framework="pt") as tensors:
            names = tensors.keys()
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    return total
