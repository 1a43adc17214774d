"""How survival learns from an empty table, and what a change of the requests' mix does to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.plots import draw_lines
from benchmarks.replay_bounds import Bounds
from benchmarks.replay_prices import BATCHES, make_arms, make_prices
from benchmarks.replay_selectors import MAIN
from benchmarks.replay_simulator import Progress, Setting, simulate
from benchmarks.replay_traces import Trace, balanced
from benchmarks.spread import print_table
from policies.arms import Floats
from policies.rule import RuleSelector
from policies.selector import Decision

NUM_PARTS = 8


def show_curves(traces: Sequence[Trace], per_domain: int, num_orders: int) -> None:
    """Survival by eighths of the text: all domains mixed, and one by one."""
    models, lookups = traces[0].models, traces[0].lookups
    arms = make_arms(models, lookups)
    curves: dict[str, dict[str, list[float]]] = {"mixed": {}, "domain after domain": {}}
    for batch in BATCHES:
        setting = Setting(arms, make_prices(arms, batch, lookups=lookups), batch)
        for kind, by_batch in curves.items():
            orders = []
            for seed in range(num_orders):
                sample = balanced(traces, per_domain, seed)
                if kind != "mixed":
                    sample.sort(key=lambda trace: trace.domain)
                orders.append(against_rule(sample, setting, seed))
            by_batch[f"batch {batch}"] = np.mean(orders, axis=0).tolist()
    parts = [f"{part}/{NUM_PARTS}" for part in range(1, NUM_PARTS + 1)]
    rows = [
        [f"{batch}, {kind}", *(f"{ratio:.3f}" for ratio in ratios)]
        for kind, by_batch in curves.items()
        for batch, ratios in by_batch.items()
    ]
    title = "survival against the rule tuned for the batch, by eighths of the text"
    print_table(title, ["", *parts, "all"], rows)
    draw_lines(
        "replay_learning.png",
        "survival from an empty table",
        {kind: {name: r[:-1] for name, r in lines.items()} for kind, lines in curves.items()},
        list(range(1, NUM_PARTS + 1)),
        ("eighth of the text", "tokens/s by the tuned rule's"),
    )


def against_rule(sample: Sequence[Trace], setting: Setting, seed: int) -> list[float]:
    """Ratios of tokens/s for each part of the text in order, then for all of it."""
    rules = Bounds(sample, setting.arms).rules(setting.prices.seconds(setting.load))
    length, other = max(rules, key=rules.__getitem__)
    name, other_length = setting.arms.keys[other]
    tuned = RuleSelector(sample[0].lookups, max(length, 1), Decision(name or None, other_length))
    ours, theirs = (
        _seconds_by_part(simulate(sample, selector, setting))
        for selector in (MAIN["survival"].build(setting, seed), tuned)
    )
    ratios: list[float] = (np.append(theirs, theirs.sum()) / np.append(ours, ours.sum())).tolist()
    return ratios


def _seconds_by_part(progress: Progress) -> Floats:
    """Of each eighth of the tokens, in the order they were decoded in."""
    tokens, seconds = np.array([(0, 0.0), *progress.curve]).T
    marks = np.linspace(0, progress.num_tokens, NUM_PARTS + 1)
    return np.diff(np.interp(marks, tokens, seconds))
