"""`python -m benchmarks.replay`: selectors on recorded accept lengths, in tokens per second.

Seconds are those of a fitted cost model. Counterfactual requests only, domains balanced, medians
over several orders, each learner starting from nothing. TRACES=folder names other traces in the
same form. The last line printed is one JSON object. QUICK=1: within 60 s.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.machine import is_quick
from benchmarks.replay_bounds import Bounds
from benchmarks.replay_prices import BATCHES, DraftPrice, make_arms, make_prices
from benchmarks.replay_selectors import ABLATIONS, LEARNERS, MAIN, Candidate
from benchmarks.replay_simulator import Setting, simulate
from benchmarks.replay_traces import Trace, balanced, read_traces
from benchmarks.spread import Spread, print_table
from policies.arms import Arms

DEFAULT_FOLDER = Path(__file__).parents[2] / "shared" / "data" / "traces"
LOADS = ("b1", "b8", "b32", "b128")

Speeds = dict[str, list[float]]
"""Tokens per second by name, one for each order."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much to run; the further candidates and the other price of drafts in fewer orders."""

    per_domain: int
    num_orders: int
    num_further_orders: int
    num_shift_orders: int


FULL = Size(per_domain=60, num_orders=5, num_further_orders=2, num_shift_orders=2)
QUICK = Size(per_domain=15, num_orders=1, num_further_orders=0, num_shift_orders=0)


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
    figures = compare(traces, size, "per_token", MAIN, size.num_orders)
    if size.num_further_orders:
        further = {**MAIN, **LEARNERS, **ABLATIONS}
        compare(traces, size, "per_token", further, size.num_further_orders)
        compare(traces, size, "per_call", MAIN, size.num_further_orders)
        show_shift(traces, size)
    print(json.dumps(figures))
    return 0


def compare(
    traces: Sequence[Trace],
    size: Size,
    price: DraftPrice,
    candidates: Mapping[str, Candidate],
    num_orders: int,
) -> dict[str, dict[str, float]]:
    """Prints a table; medians over the orders by batch and name."""
    arms = make_arms()
    speeds: dict[int, Speeds] = {batch: {} for batch in BATCHES}
    for seed in range(num_orders):
        sample = balanced(traces, size.per_domain, seed)
        bounds = Bounds(sample, arms)
        for batch in BATCHES:
            row = _bounds(bounds, arms, batch, price)
            row |= _learners(
                sample, candidates, Setting(arms, make_prices(arms, batch, price), batch), seed
            )
            for name, speed in row.items():
                speeds[batch].setdefault(name, []).append(speed)
    _show(f"tokens/s, model drafts priced {price}, {num_orders} orders", speeds)
    return {
        load: {name: round(Spread.of(each).median, 1) for name, each in speeds[batch].items()}
        for load, batch in zip(LOADS, BATCHES, strict=True)
    }


def _bounds(bounds: Bounds, arms: Arms, batch: int, price: DraftPrice) -> dict[str, float]:
    prices = make_prices(arms, batch, price).table
    fixed, rules = bounds.fixed(prices), bounds.rules(prices)
    at_one = bounds.rules(make_prices(arms, 1, price).table)
    return {
        "plain": fixed["", 0],
        "best_fixed": max(fixed.values()),
        "hindsight": bounds.hindsight(prices),
        "rule_tuned": max(rules.values()),
        "rule_b1": rules[max(at_one, key=at_one.__getitem__)],
        "clairvoyant": bounds.clairvoyant(prices),
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
            if not name.startswith("survival")
        ],
    )


def _ratio(speeds: Speeds, name: str) -> str:
    ratios = [a / b for a, b in zip(speeds["survival"], speeds[name], strict=True)]
    spread = Spread.of(ratios)
    return f"{spread.median:.3f} ({spread.low:.3f}-{spread.high:.3f})"


def show_shift(traces: Sequence[Trace], size: Size) -> None:
    """The learning curve, and requests that come domain by domain instead of mixed."""
    arms = make_arms()
    rows: list[list[object]] = []
    for batch in BATCHES:
        setting = Setting(arms, make_prices(arms, batch), batch)
        for seed in range(size.num_shift_orders):
            mixed = balanced(traces, size.per_domain, seed)
            shifting = sorted(mixed, key=lambda trace: trace.domain)
            for kind, sample in (("mixed", mixed), ("by domain", shifting)):
                rows.append([f"batch {batch}, {kind}", *_against_rule(sample, setting, seed)])
    print_table(
        "survival against the rule tuned for the batch, by quarters of the requests",
        ["", "1st", "2nd", "3rd", "4th", "all"],
        rows,
    )


def _against_rule(sample: Sequence[Trace], setting: Setting, seed: int) -> list[str]:
    """Ratios of tokens/s for each quarter of the requests in order, then for all of them."""
    progress = simulate(sample, MAIN["survival"].build(setting, seed), setting)
    quarter = len(sample) // 4
    parts = [sample[i * quarter : (i + 1) * quarter] for i in range(4)]
    prices = make_prices(setting.arms, setting.batch).table
    marks = [(0, 0.0), *(progress.curve[(i + 1) * quarter - 1] for i in range(4))]
    speeds = [(after[0] - before[0]) / (after[1] - before[1]) for before, after in pairwise(marks)]
    tuned = max(Bounds(sample, setting.arms).rules(prices).items(), key=lambda item: item[1])
    ratios = [
        speed / Bounds(part, setting.arms).rules(prices)[tuned[0]]
        for speed, part in zip(speeds, parts, strict=True)
    ]
    return [f"{ratio:.3f}" for ratio in (*ratios, progress.tokens_per_s / tuned[1])]


if __name__ == "__main__":
    sys.exit(main())
