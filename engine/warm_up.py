"""What target steps of some sizes take, measured before the first request.

It also pays for what the first use of each size costs (kernels chosen, memory mapped).
"""

from __future__ import annotations

import time

from engine.runner import Extension, ModelRunner
from policies.step_curve import StepTime

_NUM_TOKENS = (1, 2, 4, 6, 8, 16, 17, 32, 64)
_NUM_REPEATS = 3


def measure_steps(runner: ModelRunner, max_tokens: int, block_size: int) -> list[StepTime]:
    """The fastest of a few steps of one sequence, by number of tokens up to `max_tokens`.

    Slower ones say more of the moment than of the size. Writes into the runner's first blocks, so
    that nothing may be in them yet.
    """
    return [
        min(
            (_measure(runner, num_tokens, block_size) for _ in range(_NUM_REPEATS)),
            key=lambda step: step.seconds,
        )
        for num_tokens in _NUM_TOKENS
        if num_tokens <= max_tokens
    ]


def _measure(runner: ModelRunner, num_tokens: int, block_size: int) -> StepTime:
    blocks = list(range(-(-num_tokens // block_size)))
    extension = Extension([0] * num_tokens, 0, blocks, num_tokens)
    started = time.perf_counter()
    logits = runner.extend([extension])
    logits.greedy(num_tokens - 1)  # waits for the device
    return StepTime(num_tokens, 1, num_tokens, time.perf_counter() - started)
