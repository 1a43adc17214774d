"""Every drafter, and the default rule, against plain decoding on every prompt set, in turns.

One stream, prefill on both sides. The `model` drafter takes part in the first repeat only.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.spread import print_table
from benchmarks.tally import Tally
from benchmarks.workbench import LOOKUP, PLAIN, RULE, SHALLOW, SUFFIX, Ids, Workbench

ONCE = (PLAIN, LOOKUP, SUFFIX, RULE, SHALLOW)
AGAIN = (PLAIN, LOOKUP, SUFFIX, RULE)
SPECULATING = tuple(mode.name for mode in ONCE if mode is not PLAIN)
Tallies = Mapping[str, Mapping[str, Tally]]  # by prompt set and mode


def compare_drafters(
    bench: Workbench, prompt_sets: Mapping[str, Sequence[Ids]], max_tokens: int, repeats: int
) -> dict[str, float]:
    """Prints all modes on all sets; the figures are ratios to plain decoding, and overheads."""
    tallies: Tallies = {name: {mode.name: Tally() for mode in ONCE} for name in prompt_sets}
    for repeat in range(repeats):
        for name, prompts in prompt_sets.items():
            for i, prompt in enumerate(prompts):
                modes = AGAIN if repeat else ONCE
                first = (repeat + i) % len(modes)
                in_turn = modes[first:] + modes[:first]
                runs = {mode.name: bench.run([prompt], mode, max_tokens) for mode in in_turn}
                plain_ids = runs[PLAIN.name].ids
                for mode_name, run in runs.items():
                    tallies[name][mode_name].add(repeat, run, run.ids != plain_ids)
    title = (
        f"drafters against plain decoding: greedy, 1 stream, at most {max_tokens} "
        f"tokens, prefill included, {repeats} repeats in turns"
    )
    _print(title, tallies)
    return _figures(tallies)


def _print(title: str, sets: Tallies) -> None:
    rows = [
        [
            f"{set_name} {name}",
            tally.tokens_per_s,
            "-" if name == PLAIN.name else tally.speedup_over(tallies[PLAIN.name]),
            f"{tally.mean_acceptance_length:.2f}",
            f"{tally.acceptance:.0%}",
            f"{_median_overhead_ms([tally]):.2f}",
            tally.num_different,
        ]
        for set_name, tallies in sets.items()
        for name, tally in tallies.items()
    ]
    print_table(
        title,
        ["", "tokens/s", "vs plain", "acceptance length", "accepted", "overhead ms", "other ids"],
        rows,
    )


def _figures(sets: Tallies) -> dict[str, float]:
    ratios = {
        f"{name}_{set_name}_vs_plain": tallies[name].speedup_over(tallies[PLAIN.name]).median
        for set_name, tallies in sets.items()
        for name in SPECULATING
    }
    by_mode = {mode.name: [tallies[mode.name] for tallies in sets.values()] for mode in ONCE}
    overheads = {f"overhead_ms_{name}": _median_overhead_ms(t) for name, t in by_mode.items()}
    num_drafted = sum(tally.num_draft_tokens for tally in by_mode[SHALLOW.name])
    num_accepted = sum(tally.num_accepted_tokens for tally in by_mode[SHALLOW.name])
    return {
        **ratios,
        "prompt_lookup_edit_vs_plain": ratios["lookup_edit_vs_plain"],
        "worst_vs_plain": min(ratios[f"{RULE.name}_{name}_vs_plain"] for name in sets),
        **overheads,
        "overhead_ms_per_round": overheads[f"overhead_ms_{RULE.name}"],
        "model_acceptance": num_accepted / max(1, num_drafted),
        "num_different": sum(tally.num_different for mode in by_mode.values() for tally in mode),
    }


def _median_overhead_ms(tallies: Sequence[Tally]) -> float:
    """What a round takes beside the target's forward: the median of all runs."""
    return statistics.median([ms for tally in tallies for ms in tally.overhead_ms] or [0.0])
