"""Plain decoding of several streams at once, and of sampled against greedy tokens."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.prompts import load_prompts
from benchmarks.spread import Spread, paired_ratios, print_table
from benchmarks.workbench import GREEDY, PLAIN, Ids, Run, Workbench
from engine.request import SamplingParams

STREAMS = (1, 4, 8)
SAMPLED = SamplingParams(temperature=0.7, top_p=0.9, seed=11)


def compare_streams(bench: Workbench, num_tokens: int, repeats: int) -> dict[str, float]:
    """The same 8 prompts, 1, 4 or 8 at a time; every answer has `num_tokens` tokens."""
    prompts = [bench.encode(prompt.text) for prompt in load_prompts("chat")[: max(STREAMS)]]
    total: dict[int, list[float]] = {width: [] for width in STREAMS}
    decode: dict[int, list[float]] = {width: [] for width in STREAMS}
    for repeat in range(repeats):
        for width in STREAMS if repeat % 2 else reversed(STREAMS):
            runs = [
                bench.run(prompts[i : i + width], PLAIN, num_tokens, ignore_eos=True)
                for i in range(0, max(STREAMS), width)
            ]
            total[width].append(sum(r.num_tokens for r in runs) / sum(r.total_s for r in runs))
            decode[width].append(sum(r.num_decoded for r in runs) / sum(r.decode_s for r in runs))
    print_table(
        f"plain decoding, {max(STREAMS)} prompts x {num_tokens} tokens, {repeats} repeats in turns",
        ["streams", "tokens/s", "against 1", "tokens/s after prefill", "against 1"],
        [
            [w, Spread.of(total[w]), paired_ratios(total[w], total[1]),
             Spread.of(decode[w]), paired_ratios(decode[w], decode[1])]
            for w in STREAMS
        ],
    )  # fmt: skip
    return {
        "streams4_vs_1": paired_ratios(total[4], total[1]).median,
        "streams8_vs_1": paired_ratios(total[8], total[1]).median,
        "streams8_vs_1_decode": paired_ratios(decode[8], decode[1]).median,
    }


def compare_sampled_with_greedy(
    bench: Workbench, prompts: Sequence[Ids], num_tokens: int, repeats: int
) -> dict[str, float]:
    """A plain decoding step with temperature 0.7 and top_p 0.9 against a greedy one."""
    greedy: list[float] = []
    sampled: list[float] = []
    for repeat in range(repeats):
        sides = [(GREEDY, greedy), (SAMPLED, sampled)]
        for params, steps_ms in sides if repeat % 2 else reversed(sides):
            runs = [bench.run([p], PLAIN, num_tokens, params, ignore_eos=True) for p in prompts]
            steps_ms.append(_step_ms(runs))
    ratio = paired_ratios(sampled, greedy)
    print_table(
        f"one plain step: {len(prompts)} prompts x {num_tokens} tokens, {repeats} repeats in turns",
        ["", "ms"],
        [
            ["greedy", Spread.of(greedy)],
            ["temperature 0.7, top_p 0.9", Spread.of(sampled)],
            ["ratio", ratio],
        ],
    )
    return {"sampled_vs_greedy_step": ratio.median}


def _step_ms(runs: Sequence[Run]) -> float:
    return sum(run.decode_s for run in runs) / sum(run.num_rounds for run in runs) * 1e3
