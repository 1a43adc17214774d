"""`python -m benchmarks.selection`: selectors live, on the real model and a mix of prompts.

The drafters are the lookups and the heads of `models/`, or else the target's own first layers.
Every selector, every fixed arm, the rule and plain decoding decode the same prompts in turns; then
some of them with 1 to 32 streams. Speeds count from the first token on, all learners start from
nothing. STOP=0.8 lets trained drafters stop by themselves, and adds survival with their confidence.
The last line printed is one JSON object. QUICK=1: within 60 s.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.decoding import mix
from benchmarks.machine import describe_machine, is_quick
from benchmarks.prompts import DOMAINS, load_prompts
from benchmarks.shallow_model import write_shallow_model
from benchmarks.speeds import Speed, Speeds, by_domain
from benchmarks.spread import Spread, paired_ratios, print_table
from benchmarks.workbench import (
    MODEL,
    PLAIN,
    RULE,
    Ids,
    Mode,
    Workbench,
    drafter_configs,
    trained_configs,
)
from engine.config import TargetConfig
from engine.model_files import resolve_model
from policies.arms import Arms, draft_lengths_up_to
from policies.cost_model import ArmPrices
from policies.exp3spec import Exp3Spec
from policies.features import CONFIDENCE_EDGES, Features
from policies.fixed import FixedSelector
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Rule
from policies.normalhedge import NormalHedge
from policies.selector import Selector
from policies.survival import Survival, SurvivalSelector
from policies.ucbspec import UcbSpec

NUM_SHALLOW_LAYERS = 6
SURVIVAL = "survival"


@dataclass(frozen=True, slots=True)
class Size:
    """How much to run."""

    num_prompts: int
    num_tokens: int
    repeats: int
    fixed_lengths: tuple[int, ...]
    streams: tuple[int, ...]
    stream_tokens: int
    stream_repeats: int


FULL = Size(12, 48, 3, (2, 5, 16), (1, 2, 4, 8, 16, 32), 32, 3)
QUICK = Size(len(DOMAINS), 12, 1, (4,), (1, 4), 8, 1)


def main() -> int:
    size = QUICK if is_quick() else FULL
    with tempfile.TemporaryDirectory() as folder:
        stop = os.environ.get("STOP")
        every = trained_configs(float(stop) if stop else None)
        trained = [config for config in every if config.kind == "head"]
        shallow = (
            None if trained
            else write_shallow_model(resolve_model(MODEL), NUM_SHALLOW_LAYERS, Path(folder))
        )  # fmt: skip
        config = TargetConfig(MODEL, numerics="fast", max_num_sequences=32)
        bench = Workbench(config, [*drafter_configs(shallow), *trained])
    print(describe_machine())
    fixed = fixed_modes(bench.longest, size.fixed_lengths)
    learners = add_learners(bench)
    bench.use_selectors({
        mode.name: FixedSelector(mode.drafters[0], length) for length, mode in fixed
    })  # fmt: skip
    modes = [PLAIN, RULE, *(mode for _, mode in fixed), *learners]
    prompts = mixed_prompts(bench, size.num_prompts)
    bench.run(prompts[:1], PLAIN, 2)  # warms up
    speeds = run_in_turns(bench, prompts, modes, size)
    figures = compare(speeds, [mode.name for _, mode in fixed])
    figures |= compare_domains(speeds, [mode for _, mode in fixed], bench)
    figures |= under_load(bench, fixed, size)
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))
    return 0


def mixed_prompts(bench: Workbench, num_prompts: int) -> list[Ids]:
    """As many of each domain, in turns."""
    per_domain = -(-num_prompts // len(DOMAINS))
    encoded = {
        domain: [bench.encode(prompt.text) for prompt in islice(load_prompts(domain), per_domain)]
        for domain in DOMAINS
    }
    return mix(encoded, num_prompts)


def fixed_modes(drafters: Mapping[str, int], lengths: Sequence[int]) -> list[tuple[int, Mode]]:
    """Every drafter at every length that it can give."""
    return [
        (length, Mode(f"{name} {length}", (name,)))
        for name, longest in drafters.items()
        for length in draft_lengths_up_to(longest, lengths)
    ]


def add_learners(bench: Workbench) -> list[Mode]:
    """Each has all drafters and one state for all requests; losses are in seconds."""
    arms = Arms({name: draft_lengths_up_to(longest) for name, longest in bench.longest.items()})
    prices, generator = ArmPrices(bench.costs, arms), np.random.default_rng(0)
    rules: dict[str, Rule] = {
        "ucbspec": UcbSpec(),
        "exp3spec": Exp3Spec(),
        "hedge": Hedge(),
        "normalhedge": NormalHedge(),
    }
    learning = Learning("seconds", "global")
    selectors: dict[str, Selector] = {
        name: LearningSelector(arms, rule, prices, generator, learning)
        for name, rule in rules.items()
    }
    selectors[SURVIVAL] = SurvivalSelector(arms, prices, generator)
    if any(drafter.stop_threshold is not None for drafter in bench.drafters):
        settings = Survival(features=Features(confidence_edges=CONFIDENCE_EDGES))
        sure = SurvivalSelector(arms, prices, generator, settings)
        selectors[f"{SURVIVAL}, confidence"] = sure
    bench.use_selectors(selectors)
    return [Mode(name, tuple(bench.longest)) for name in selectors]


def run_in_turns(
    bench: Workbench, prompts: Sequence[Ids], modes: Sequence[Mode], size: Size
) -> Speeds:
    """One stream; which mode comes first changes with every prompt."""
    speeds = {mode.name: Speed() for mode in modes}
    for repeat in range(size.repeats):
        for speed in speeds.values():
            speed.repeats.append([])
        for i, prompt in enumerate(prompts):
            first = (repeat * len(prompts) + i) % len(modes)
            for mode in [*modes[first:], *modes[:first]]:
                run = bench.run([prompt], mode, size.num_tokens, ignore_eos=True)
                speeds[mode.name].repeats[repeat].append(run)
        print(f"repeat {repeat + 1} of {size.repeats}", file=sys.stderr, flush=True)
    return speeds


def compare(speeds: Speeds, fixed: Sequence[str]) -> dict[str, float]:
    """Prints all modes; ratios of the same repeat."""
    plain, survival = speeds[PLAIN.name].tokens_per_s, speeds[SURVIVAL].tokens_per_s
    hindsight = _hindsight(speeds, fixed)
    by_name = {name: speed.tokens_per_s for name, speed in speeds.items()}
    best = max(fixed, key=lambda name: statistics.median(by_name[name]))
    rows = [
        [name, Spread.of(values), paired_ratios(values, plain),
         f"{speeds[name].acceptance_length:.2f}" if name in speeds else "-"]
        for name, values in {**by_name, "best fixed arm of each prompt": hindsight}.items()
    ]  # fmt: skip
    print_table(
        f"one stream, {len(speeds[PLAIN.name].repeats[0])} mixed prompts, {len(plain)} repeats",
        ["", "tokens/s", "vs plain", "acceptance length"],
        rows,
    )
    figures = {f"{name} tokens/s": statistics.median(values) for name, values in by_name.items()}
    return {
        "best_vs_fixed": paired_ratios(survival, by_name[best]).median,
        "vs_hindsight": paired_ratios(survival, hindsight).median,
        "vs_plain": paired_ratios(survival, plain).median,
        "vs_rule": paired_ratios(survival, by_name[RULE.name]).median,
        **figures,
    }


def compare_domains(speeds: Speeds, fixed: Sequence[Mode], bench: Workbench) -> dict[str, float]:
    """Prints what survival gains in each domain, and in all against the bound of all."""
    found = by_domain(speeds, SURVIVAL, fixed, DOMAINS, bench.costs)
    rows = [
        [each.domain, f"{each.speed_up:.2f}", f"{each.acceptance_length:.2f}", each.best_arm,
         f"{each.best_speed_up:.2f}", f"{each.bound:.2f}"]
        for each in found
    ]  # fmt: skip
    print_table(
        f"{SURVIVAL} by domain, against plain decoding",
        ["", "vs plain", "acceptance length", "best fixed arm", "vs plain", "bound"],
        rows,
    )
    bound = len(found) / sum(1.0 / each.bound for each in found)
    return {f"{each.domain}_vs_plain": each.speed_up for each in found} | {"bound": bound}


def _hindsight(speeds: Speeds, fixed: Sequence[str]) -> list[float]:
    """By repeat: each prompt by its best fixed arm, as the other repeats show it.

    Noise chooses along with only one repeat, so that the figure is then too high.
    """
    arms = [PLAIN.name, *fixed]
    token_s = {name: speeds[name].token_s for name in arms}
    num_repeats, num_prompts = token_s[PLAIN.name].shape
    figures = []
    for repeat in range(num_repeats):
        others = [r for r in range(num_repeats) if r != repeat] or [repeat]
        runs = [
            speeds[min(arms, key=lambda name: token_s[name][others, i].mean())].repeats[repeat][i]
            for i in range(num_prompts)
        ]
        figures.extend(Speed([runs]).tokens_per_s)
    return figures


def under_load(bench: Workbench, fixed: Sequence[tuple[int, Mode]], size: Size) -> dict[str, float]:
    """Survival against plain decoding, and the longest fixed arms once, by number of streams.

    A stream that ends makes room for the next prompt; the rounds in which all streams decode count.
    """
    prompts = mixed_prompts(bench, max(_num_prompts(n, size) for n in size.streams))
    longest = [mode for length, mode in fixed if length == max(size.fixed_lengths)]
    survival = Mode(SURVIVAL, tuple(bench.longest))
    ratios: dict[str, list[Spread]] = {mode.name: [] for mode in (survival, *longest)}
    for num_streams in size.streams:
        speeds: dict[str, list[float]] = {mode.name: [] for mode in (PLAIN, survival, *longest)}
        for repeat in range(size.stream_repeats):
            modes = [PLAIN, survival, *(longest if repeat == 0 else ())]
            for mode in modes if repeat % 2 else reversed(modes):
                run = bench.run(
                    prompts[: _num_prompts(num_streams, size)], mode, size.stream_tokens,
                    ignore_eos=True, num_streams=num_streams,
                )  # fmt: skip
                speeds[mode.name].append(run.num_decoded / run.decode_s)
        for name, spreads in ratios.items():
            plain = speeds[PLAIN.name][: len(speeds[name])]
            spreads.append(paired_ratios(speeds[name], plain))
        print(f"{num_streams} streams done", file=sys.stderr, flush=True)
    print_table(
        f"against plain decoding, {size.stream_tokens} tokens, {size.stream_repeats} repeats",
        ["streams", *map(str, size.streams)],
        [[name, *spreads] for name, spreads in ratios.items()],
    )
    fixed_worst = min(spread.median for mode in longest for spread in ratios[mode.name])
    return {
        "worst_load_vs_plain": min(spread.median for spread in ratios[SURVIVAL]),
        "worst_load_fixed_vs_plain": fixed_worst,
    }


def _num_prompts(num_streams: int, size: Size) -> int:
    """As many as keep the streams busy for a while, of the 48 there are."""
    return min(max(size.num_prompts, 2 * num_streams), 48)


if __name__ == "__main__":
    sys.exit(main())
