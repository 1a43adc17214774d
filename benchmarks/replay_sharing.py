"""`python -m benchmarks.replay_sharing`: what others' statistics do to a request, on traces.

Warm starts: tokens/s of the first 64 tokens of requests, each from tables that other requests have
filled, against an empty one. Poisoning: a tenant's requests beside as many of a hostile one, whose
drafts in the very same contexts always fail or always pass; tables by tenant, leaning on one
another as in the application. TRACES=folder as for `benchmarks.replay`. The last line printed is
one JSON object. QUICK=1: within 60 s.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.machine import is_quick
from benchmarks.replay import DEFAULT_FOLDER
from benchmarks.replay_prices import BATCHES, make_arms, make_prices
from benchmarks.replay_simulator import Setting, simulate
from benchmarks.replay_tenants import WEIGHTS, SharedTables
from benchmarks.replay_traces import Trace, balanced, read_traces
from benchmarks.spread import Spread, print_table
from cluster.statistics.survival import weighed
from policies.arms import Floats, Ints
from policies.survival import Survival, SurvivalSelector

NUM_FIRST = 64
VICTIM, HOSTILE = "victim", "hostile"
ATTACKS: Mapping[str, Callable[[Ints], Ints]] = {
    "drafts fail": np.zeros_like,
    "drafts pass": lambda offered: offered,
}


@dataclass(frozen=True, slots=True)
class Size:
    per_domain: int
    num_orders: int


FULL = Size(60, 3)
QUICK = Size(12, 1)


def main() -> int:
    folder = Path(os.environ.get("TRACES") or DEFAULT_FOLDER)
    traces = read_traces(folder) if folder.is_dir() else []
    if not traces:
        print(f"skipped: no counterfactual traces in {folder}; set TRACES to a folder with some")
        print("{}")
        return 0
    size = QUICK if is_quick() else FULL
    samples = [balanced(traces, size.per_domain, seed) for seed in range(size.num_orders)]
    settings = [
        Setting(arms, make_prices(arms, batch, lookups=traces[0].lookups), batch)
        for arms in [make_arms(traces[0].models, traces[0].lookups)]
        for batch in BATCHES
    ]
    figures = show_warm_starts(samples, settings) | show_poisoning(samples, settings)
    print(json.dumps(figures))
    return 0


def show_warm_starts(
    samples: Sequence[Sequence[Trace]], settings: Sequence[Setting]
) -> dict[str, float]:
    """Prints the first tokens' speeds from filled tables, by those of an empty one."""
    domains = sorted({trace.domain for trace in samples[0]})
    rows: dict[str, list[Spread]] = {}
    for setting in settings:
        ratios: dict[str, list[float]] = {}
        for seed, sample in enumerate(samples):
            for name, ratio in warm_starts(sample, domains, setting, seed).items():
                ratios.setdefault(name, []).append(ratio)
        for name, each in ratios.items():
            rows.setdefault(name, []).append(Spread.of(each))
    header = ["", *(f"batch {setting.batch}" for setting in settings)]
    title = f"tokens/s of the first {NUM_FIRST} tokens, by those from an empty table"
    print_table(title, header, [[name, *map(_precise, each)] for name, each in rows.items()])
    return {f"warm, {name}": round(min(s.median for s in each), 4) for name, each in rows.items()}


def warm_starts(
    sample: Sequence[Trace], domains: Sequence[str], setting: Setting, seed: int
) -> dict[str, float]:
    """By what filled the table, the speed against an empty table's; by domain the shifted ones."""
    teachers, learners = sample[::2], [_first_tokens(trace) for trace in sample[1::2]]
    nothing = _learnt([], setting, seed)
    everything = _learnt(teachers, setting, seed)
    ratios = {
        "filled by all domains": _speed(learners, everything, nothing, setting, seed)
        / _speed(learners, nothing, nothing, setting, seed)
    }
    for domain in domains:
        of_others = _learnt([t for t in teachers if t.domain != domain], setting, seed)
        of_domain = [trace for trace in learners if trace.domain == domain]
        start = weighed({VICTIM: of_others}, of_others.shape, WEIGHTS)[1]
        cold = _speed(of_domain, nothing, nothing, setting, seed)
        own = _speed(of_domain, of_others, nothing, setting, seed)
        ratios[f"{domain}, filled by the other domains"] = own / cold
        lent = _speed(of_domain, nothing, start, setting, seed)
        ratios[f"{domain}, the same from other tenants"] = lent / cold
    return ratios


def _learnt(teachers: Sequence[Trace], setting: Setting, seed: int) -> Floats:
    """The counts of a table after these requests."""
    learner = _survival(setting, seed)
    simulate([replace(trace, domain=VICTIM) for trace in teachers], learner, setting)
    return learner.take().get(VICTIM, np.zeros(learner.table.shape))


def _speed(
    traces: Sequence[Trace], own: Floats, others: Floats, setting: Setting, seed: int
) -> float:
    """Tokens/s of requests that each start from these counts, or from those of other tenants.

    What a second is worth goes on from request to request, as in one process.
    """
    num_tokens, seconds = 0, 0.0
    learner = _survival(setting, seed)
    for trace in traces:
        learner.take()  # so that nothing is left of the request before
        learner.use({VICTIM: own} if own.any() else {}, others)
        progress = simulate([replace(trace, domain=VICTIM)], learner, setting)
        num_tokens, seconds = num_tokens + progress.num_tokens, seconds + progress.seconds
    return num_tokens / seconds


def _survival(setting: Setting, seed: int) -> SurvivalSelector:
    generator = np.random.default_rng(seed)
    return SurvivalSelector(setting.arms, setting.prices, generator, Survival("tenant"))


def _first_tokens(trace: Trace) -> Trace:
    return replace(trace, num_tokens=min(trace.num_tokens, NUM_FIRST))


def show_poisoning(
    samples: Sequence[Sequence[Trace]], settings: Sequence[Setting]
) -> dict[str, float]:
    """Prints the victim's speed by that alone, and how far its choices of arms moved."""
    rows: list[list[object]] = []
    figures: dict[str, float] = {}
    for attack in ("alone, other draws", *ATTACKS):
        speeds, moved = [], []
        for setting in settings:
            pairs = [poison(sample, attack, setting, s) for s, sample in enumerate(samples)]
            speeds.append(Spread.of([speed for speed, _ in pairs]))
            moved.append(Spread.of([points for _, points in pairs]))
        rows.append([f"{attack}: tokens/s", *map(_precise, speeds)])
        rows.append([f"{attack}: points moved", *moved])
        figures[f"{attack}, tokens/s"] = round(min(each.median for each in speeds), 4)
        figures[f"{attack}, points"] = round(max(each.median for each in moved), 2)
    header = ["", *(f"batch {setting.batch}" for setting in settings)]
    print_table("a tenant beside a hostile one, against alone", header, rows)
    return figures


def poison(
    sample: Sequence[Trace], attack: str, setting: Setting, seed: int
) -> tuple[float, float]:
    """The victim's tokens/s by those alone, and the points that its shares of drafters and lengths
    moved by: half the sum of all changes."""
    victims = [replace(trace, domain=VICTIM) for trace in sample[::2]]
    others = [_hostile(trace, ATTACKS[attack]) for trace in sample[1::2] if attack in ATTACKS]
    alone, beside = SharedTables(setting, seed, VICTIM), SharedTables(setting, seed + 1, VICTIM)
    simulate(victims, alone, setting)
    mixed = [trace for pair in zip(victims, others, strict=False) for trace in pair]
    simulate(mixed or victims, beside, setting)
    arms = {*alone.shares, *beside.shares}
    moved = sum(abs(alone.shares.get(arm, 0.0) - beside.shares.get(arm, 0.0)) for arm in arms)
    return beside.tokens_per_s / alone.tokens_per_s, 100 * moved / 2


def _hostile(trace: Trace, attack: Callable[[Ints], Ints]) -> Trace:
    accepted = {name: attack(offered) for name, offered in trace.offered.items()}
    return replace(trace, domain=HOSTILE, accepted=accepted)


def _precise(spread: Spread) -> str:
    return f"{spread.median:.3f} ({spread.low:.3f}-{spread.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
