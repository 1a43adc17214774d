"""`python -m benchmarks.replay`: selectors on recorded accept lengths, in tokens per second.

Seconds are those of a fitted cost model. Counterfactual requests only, domains balanced, medians
over several orders, each learner starting from nothing. TRACES=folder names other traces in the
same form. The last line printed is one JSON object. QUICK=1: within 60 s.

`hindsight` charges an arm what it drafts; `hindsight_whole` its whole length at every round, also
where its drafter offers less or nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import is_quick
from benchmarks.plots import draw_bars
from benchmarks.replay_bounds import Bounds
from benchmarks.replay_curve import show_curves
from benchmarks.replay_prices import BATCHES, DraftPrice, make_arms, make_prices
from benchmarks.replay_selectors import ABLATIONS, LEARNERS, MAIN, Candidate
from benchmarks.replay_simulator import Setting, simulate
from benchmarks.replay_traces import Trace, balanced, read_traces
from benchmarks.spread import Spread, paired_ratios, print_table
from policies.prices import FixedPrices

DEFAULT_FOLDER = Path(__file__).parents[2] / "shared" / "data" / "traces"
LOADS = ("b1", "b8", "b32", "b128")

Speeds = dict[str, list[float]]
"""Tokens per second by name, one for each order."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much to run; the further candidates in fewer orders."""

    per_domain: int
    num_orders: int
    num_further_orders: int
    num_curve_orders: int


FULL = Size(per_domain=60, num_orders=5, num_further_orders=1, num_curve_orders=2)
QUICK = Size(per_domain=15, num_orders=1, num_further_orders=0, num_curve_orders=0)


def main() -> int:
    folder = Path(os.environ.get("TRACES") or DEFAULT_FOLDER)
    traces = read_traces(folder) if folder.is_dir() else []
    if not traces:
        print(f"skipped: no counterfactual traces in {folder}; set TRACES to a folder with some")
        print("{}")
        return 0
    size = QUICK if is_quick() else FULL
    domains = sorted({trace.domain for trace in traces})
    print(f"{len(traces)} counterfactual requests of {domains}, <= {size.per_domain} of each a run")
    further = {**LEARNERS, **ABLATIONS} if size.num_further_orders else {}
    figures = compare(traces, size, "per_token", MAIN, further)
    if size.num_further_orders:
        compare(traces, size, "per_call", {"survival": MAIN["survival"]}, {})
        say("learning curves")
        show_curves(traces, size.per_domain, size.num_curve_orders)
    draw_bars("replay.png", "tokens/s on recorded traces", figures)
    print(json.dumps(figures))
    return 0


def compare(
    traces: Sequence[Trace],
    size: Size,
    price: DraftPrice,
    candidates: Mapping[str, Candidate],
    further: Mapping[str, Candidate],
) -> dict[str, dict[str, float]]:
    """Prints a table; medians over the orders by batch and name of all but the `further` ones."""
    models, lookups = traces[0].models, traces[0].lookups
    arms = make_arms(models, lookups)
    speeds: dict[int, Speeds] = {batch: {} for batch in BATCHES}
    for seed in range(size.num_orders):
        sample = balanced(traces, size.per_domain, seed)
        bounds = Bounds(sample, arms)
        for batch in BATCHES:
            say(f"drafts {price}: order {seed + 1} of {size.num_orders}, batch {batch}")
            prices = make_prices(arms, batch, price, lookups)
            row = _bounds(bounds, prices, make_prices(arms, 1, price, lookups))
            tried = {**candidates, **(further if seed < size.num_further_orders else {})}
            row |= _learners(sample, tried, Setting(arms, prices, batch), seed)
            for name, speed in row.items():
                speeds[batch].setdefault(name, []).append(speed)
    _show(f"tokens/s, model drafts priced {price}, {size.num_orders} orders", speeds)
    return {
        load: {
            name: round(Spread.of(each).median, 1)
            for name, each in speeds[batch].items()
            if name not in further
        }
        for load, batch in zip(LOADS, BATCHES, strict=True)
    }


def _bounds(bounds: Bounds, prices: FixedPrices, alone: FixedPrices) -> dict[str, float]:
    """`alone` are the prices at batch 1."""
    fixed, rules = bounds.fixed(prices.table), bounds.rules(prices.table)
    at_one = bounds.rules(alone.table)
    return {
        "plain": fixed["", 0],
        "best_fixed": max(fixed.values()),
        "hindsight": bounds.hindsight(prices.table),
        "hindsight_whole": bounds.hindsight_whole(prices.table),
        "rule_tuned": max(rules.values()),
        "rule_b1": rules[max(at_one, key=at_one.__getitem__)],
        "clairvoyant": bounds.clairvoyant(prices.table),
    }


def _learners(
    sample: Sequence[Trace], candidates: Mapping[str, Candidate], setting: Setting, seed: int
) -> dict[str, float]:
    return {
        name: simulate(
            sample, candidate.build(setting, seed), candidate.setting(setting)
        ).tokens_per_s
        for name, candidate in candidates.items()
    }


def _show(title: str, speeds: Mapping[int, Speeds]) -> None:
    names = list(speeds[BATCHES[0]])
    print_table(
        title,
        ["", *(f"batch {batch}" for batch in BATCHES)],
        [[name, *(Spread.of(speeds[batch][name]) for batch in BATCHES)] for name in names],
    )
    print_table(
        "survival against",
        ["", *(f"batch {batch}" for batch in BATCHES)],
        [
            [name, *(_ratio(speeds[batch], name) for batch in BATCHES)]
            for name in names
            if name != "survival"
        ],
    )


def say(stage: str) -> None:
    """Where the run is, for whoever waits."""
    print(f"replay: {stage}", file=sys.stderr, flush=True)


def _ratio(speeds: Speeds, name: str) -> str:
    spread = paired_ratios(speeds["survival"][: len(speeds[name])], speeds[name])
    return f"{spread.median:.3f} ({spread.low:.3f}-{spread.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
