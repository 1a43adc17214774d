"""`python -m benchmarks.replay_cost`: what a selector itself costs in an engine step.

64 sequences, 8 drafters, 8 draft lengths: `choose`, and `observe` of every chosen draft and of
those that were to be evaluated. The last line printed is one JSON object. QUICK=1: fewer steps.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.machine import is_quick
from benchmarks.spread import print_table
from policies.arms import Arms
from policies.exp3spec import Exp3Spec
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Rule
from policies.normalhedge import NormalHedge
from policies.prices import FixedPrices
from policies.selector import Context, Decision, Learner, Load, Outcome
from policies.survival import Survival, SurvivalSelector
from policies.ucbspec import UcbSpec

NUM_SEQUENCES = 64
NUM_LENGTHS = 8
RULES: Mapping[str, Callable[[], Rule]] = {
    "ucbspec": UcbSpec,
    "exp3spec": Exp3Spec,
    "hedge": Hedge,
    "normalhedge": NormalHedge,
}


def main() -> int:
    num_steps = 50 if is_quick() else 400
    by_name = {
        name: measure(lambda n, name=name: make(name, n), 8, num_steps)  # type: ignore[misc]
        for name in ("survival", *RULES)
    }
    rows = [[name, f"{us:.1f}", f"{kib:.0f}"] for name, (us, kib) in by_name.items()]
    title = f"{NUM_SEQUENCES} sequences, 8 drafters, {NUM_LENGTHS} lengths"
    print_table(title, ["", "us a sequence and round", "KiB held"], rows)
    by_arms = {
        n * NUM_LENGTHS: measure(lambda n: make("survival", n), n, num_steps // 4)[0]
        for n in (2, 8, 32, 125)
    }
    rows = [[str(n), f"{us:.1f}", f"{us / n:.3f}"] for n, us in by_arms.items()]
    print_table("survival by arms", ["arms", "us a sequence and round", "us an arm"], rows)
    figures = {
        "us_per_sequence_round": round(by_name["survival"][0], 2),
        "by_selector": {name: round(us, 2) for name, (us, _) in by_name.items()},
        "kib_held": {name: round(kib, 1) for name, (_, kib) in by_name.items()},
        "by_arms": {str(n): round(us, 2) for n, us in by_arms.items()},
    }
    print(json.dumps(figures))
    return 0


def make(name: str, num_drafters: int) -> Learner:
    arms = Arms({f"drafter{i}": range(1, 1 + NUM_LENGTHS) for i in range(num_drafters)})
    table = np.tile(1 + 0.1 * np.arange(1 + NUM_LENGTHS), (1 + num_drafters, 1))
    prices = FixedPrices(table, np.ones(1 + num_drafters))
    generator = np.random.default_rng(0)
    if name == "survival":
        return SurvivalSelector(arms, prices, generator, Survival())
    return LearningSelector(arms, RULES[name](), prices, generator, Learning("seconds", "tenant"))


def measure(
    make_selector: Callable[[int], Learner], num_drafters: int, num_steps: int
) -> tuple[float, float]:
    """Median microseconds of a step by sequence, and KiB that the selector holds."""
    tracemalloc.start()
    selector = make_selector(num_drafters)
    held = tracemalloc.get_traced_memory()[0] / 1024
    tracemalloc.stop()
    generator = np.random.default_rng(1)
    times = []
    for _ in range(num_steps):
        contexts = _contexts(num_drafters, generator)
        started = time.perf_counter()
        decisions = selector.choose(contexts)
        between = time.perf_counter()
        outcomes = [each for decision in decisions for each in _outcomes(decision, generator)]
        restarted = time.perf_counter()
        selector.observe(outcomes)
        times.append(between - started + time.perf_counter() - restarted)
    return statistics.median(times) / NUM_SEQUENCES * 1e6, held


def _contexts(num_drafters: int, generator: np.random.Generator) -> list[Context]:
    load = Load(NUM_SEQUENCES, NUM_SEQUENCES)
    draws = generator.integers(0, 9, (NUM_SEQUENCES, num_drafters, 3)).tolist()
    names = [f"drafter{i}" for i in range(num_drafters)]
    return [
        Context(
            str(i),
            "tenant",
            {name: 1 + row[0] % NUM_LENGTHS for name, row in zip(names, rows, strict=True)},
            {name: row[1] for name, row in zip(names, rows, strict=True)},
            {name: row[2] for name, row in zip(names, rows, strict=True)},
            load,
        )
        for i, rows in enumerate(draws)
    ]


def _outcomes(decision: Decision, generator: np.random.Generator) -> list[Outcome]:
    accepted = min(int(generator.geometric(0.4)) - 1, decision.draft_length)
    others = [
        Outcome(decision.id, decision.table_version, name, NUM_LENGTHS, accepted)
        for name in decision.evaluated
    ]
    return [Outcome.of(decision, accepted), *others]


if __name__ == "__main__":
    sys.exit(main())
