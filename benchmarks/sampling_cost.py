"""What sampling costs: drawing the 17 tokens that verifying a draft of 16 may take."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.forward_cost import BLOCK_SIZE
from benchmarks.spread import Spread, print_table
from benchmarks.workbench import Ids
from engine.request import SamplingParams
from engine.runner import Extension, Logits, ModelRunner
from engine.sampling import TokenSampler

NUM_ROWS = 17
OPTIONS = {
    "temperature 1": SamplingParams(temperature=1.0, seed=7),
    "temperature 0.7, top_p 0.9": SamplingParams(temperature=0.7, top_p=0.9, seed=7),
    "temperature 1, top_k 50": SamplingParams(temperature=1.0, top_k=50, seed=7),
}


def measure_sampling(runner: ModelRunner, texts: Sequence[Ids], repeats: int) -> dict[str, float]:
    """Times each option over real logits of `texts`; the worst median is `sampling_ms`.

    Uses the first blocks of the runner's cache, as `measure_forward` does.
    """
    verified = [_last_rows(runner, text) for text in texts]
    times: dict[str, list[float]] = {name: [] for name in OPTIONS}
    for repeat in range(repeats + 1):
        for logits in verified:
            for name, params in OPTIONS.items():
                elapsed = _sample_s(logits, params)
                if repeat:  # the first round warms up
                    times[name].append(elapsed * 1e3)
    spreads = {name: Spread.of(values) for name, values in times.items()}
    print_table(
        f"sampling {NUM_ROWS} rows of real logits (a draft of 16): {len(texts)} texts x {repeats}",
        ["", "ms"],
        [[name, spread] for name, spread in spreads.items()],
    )
    return {"sampling_ms": max(spread.median for spread in spreads.values())}


def _last_rows(runner: ModelRunner, text: Ids) -> Logits:
    blocks = list(range(-(-len(text) // BLOCK_SIZE)))
    return runner.extend([Extension(text, 0, blocks, NUM_ROWS)])


def _sample_s(logits: Logits, params: SamplingParams) -> float:
    sampler = TokenSampler(params, ())
    started = time.perf_counter()
    for row in range(NUM_ROWS):
        sampler.push(sampler.sample(logits.row(row), 1000 + row))
    return time.perf_counter() - started
