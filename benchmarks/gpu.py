"""`python -m benchmarks.gpu`: decoding on CUDA, plain and speculative, with graphs and without.

Greedy, in bfloat16 and `numerics: fast`; sides are run in turns, and only ratios taken in one run
mean anything. QUICK=1 does a fifth. Ends with 2 where there is no CUDA device.
"""

from __future__ import annotations

import sys
from itertools import islice
from unittest.mock import patch

import torch

from benchmarks.machine import describe_machine, is_quick
from benchmarks.prompts import DOMAINS, load_prompts
from benchmarks.spread import Spread, paired_ratios, print_table
from benchmarks.workbench import MODEL, PLAIN, RULE, Workbench, drafter_configs
from engine.config import TargetConfig
from engine.cuda_graphs import CudaGraphs

NUM_TOKENS = 128
PROMPTS_PER_DOMAIN = 4
STREAMS = (1, 8)
MODES = (PLAIN, RULE)


def main() -> int:
    if not torch.cuda.is_available():
        print("There is no CUDA device here, or torch was built without CUDA: nothing to measure.")
        return 2
    print(describe_machine())
    print(f"target: {MODEL} in bfloat16 on {torch.cuda.get_device_name()}")
    with patch.object(CudaGraphs, "record", side_effect=RuntimeError("not wanted")):
        eager = bench_on_gpu()  # measures its steps, which is when the first graph is refused
    measure({"eager": eager, "graphs": bench_on_gpu()}, repeats=1 if is_quick() else 5)
    return 0


def bench_on_gpu() -> Workbench:
    config = TargetConfig(MODEL, device="cuda", dtype="bfloat16", numerics="fast")
    return Workbench(config, drafter_configs(None))


def measure(benches: dict[str, Workbench], repeats: int) -> None:
    """Prints tokens per second of every form, mode and number of streams."""
    prompts = [
        benches["eager"].encode(prompt.text)
        for domain in DOMAINS
        for prompt in islice(load_prompts(domain), PROMPTS_PER_DOMAIN)
    ]
    cells = [(form, mode, streams) for streams in STREAMS for mode in MODES for form in benches]
    speeds: dict[tuple[str, str, int], list[float]] = {}
    for repeat in range(repeats + 1):
        for form, mode, streams in cells if repeat % 2 else reversed(cells):
            run = benches[form].run(prompts, mode, NUM_TOKENS, ignore_eos=True, num_streams=streams)
            if repeat:  # the first round warms up
                speeds.setdefault((form, mode.name, streams), []).append(run.tokens_per_s)
    rows = [
        [
            *(streams, mode.name, form, Spread.of(speeds[form, mode.name, streams])),
            paired_ratios(speeds[form, mode.name, streams], speeds["eager", PLAIN.name, streams]),
        ]
        for form, mode, streams in cells
    ]
    header = ["streams", "mode", "form", "tokens/s", "against plain and eager"]
    print_table(f"{len(prompts)} prompts x {NUM_TOKENS} tokens, {repeats} in turns", header, rows)


if __name__ == "__main__":
    sys.exit(main())
