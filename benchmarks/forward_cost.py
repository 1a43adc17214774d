"""What one forward costs by the number of tokens it verifies."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.spread import Spread, paired_ratios, print_table
from benchmarks.workbench import Ids
from engine.runner import Extension, ModelRunner

BLOCK_SIZE = 16
WIDTHS = (1, 2, 3, 4, 5, 8, 9, 12, 16, 17, 24, 32)
"""Tokens of one forward. A draft of 16 makes 17: its own, and the one before it."""


def measure_forward(runner: ModelRunner, text: Ids, context: int, repeats: int) -> dict[str, float]:
    """Times forwards of each width after `context` tokens of `text`, in turns.

    Uses the first blocks of the runner's cache: no engine may hold sequences in it meanwhile.
    """
    blocks = list(range(-(-(context + max(WIDTHS)) // BLOCK_SIZE)))
    runner.extend([Extension(text[:context], 0, blocks, 1)])
    times: dict[int, list[float]] = {width: [] for width in WIDTHS}
    for repeat in range(repeats + 1):
        first = repeat % len(WIDTHS)
        for width in WIDTHS[first:] + WIDTHS[:first]:
            elapsed = _forward_s(runner, text, context, width, blocks)
            if repeat:  # the first round warms up
                times[width].append(elapsed * 1e3)
    print_table(
        f"one forward by tokens to verify: 1 stream after {context} tokens, {repeats} in turns",
        ["tokens", "ms", "against 1 token"],
        [[w, Spread.of(times[w]), paired_ratios(times[w], times[1])] for w in WIDTHS],
    )
    ratios = {f"verify{w}_vs_1": paired_ratios(times[w], times[1]).median for w in WIDTHS[1:]}
    return {**ratios, "forward1_ms": Spread.of(times[1]).median}


def _forward_s(
    runner: ModelRunner, text: Ids, context: int, width: int, blocks: Sequence[int]
) -> float:
    tokens = text[context : context + width]
    started = time.perf_counter()
    runner.extend([Extension(tokens, context, blocks, width)]).greedy(0)
    return time.perf_counter() - started
