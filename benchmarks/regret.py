"""`python -m benchmarks.regret`: stopping-time regret of the rules on simulated arms.

Regret is in rounds: those taken until so many tokens, less those of the best fixed arm. The last
line printed is one JSON object. QUICK=1: within 60 s.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.machine import is_quick
from benchmarks.plots import draw_lines
from benchmarks.regret_simulator import (
    Drifting,
    Environment,
    Switching,
    mean_emitted,
    simulate,
)
from benchmarks.replay_baselines import MetaSdUcb, ReleasedUcbSpec, Thompson
from benchmarks.spread import print_table
from policies.exp3spec import Exp3Spec
from policies.hedge import Hedge
from policies.learning import Rule
from policies.normalhedge import NormalHedge
from policies.ucbspec import UcbSpec

DRAFT_LENGTH = 4
GOOD, POOR = 0.8, 0.5
NUM_ARMS = (2, 4, 8, 16, 32, 64)

RULES: Mapping[str, Callable[[np.random.Generator], Rule]] = {
    "banditspec_released": lambda _: ReleasedUcbSpec(),
    "ucbspec": lambda _: UcbSpec(),
    "ucbspec x0.05": lambda _: UcbSpec(0.05),
    "metasd_ucb": lambda _: MetaSdUcb(),
    "thompson": Thompson,
    "exp3spec": lambda _: Exp3Spec(),
    "hedge": lambda _: Hedge(),
    "normalhedge": lambda _: NormalHedge(),
}


def main() -> int:
    num_runs, num_tokens = (20, 4_000) if is_quick() else (100, 40_000)
    marks = [num_tokens // 4**step for step in (3, 2, 1, 0)]
    figures = {
        "by_tokens": by_tokens(marks, num_runs),
        "by_arms": by_arms(num_tokens // 4, num_runs),
        "changing": changing(num_tokens // 4, num_runs),
    }
    print(json.dumps(figures))
    return 0


def regret(environment: Environment, name: str, marks: list[int], num_runs: int) -> list[float]:
    """Mean rounds beyond those of the best arm, at each mark."""
    generator = np.random.default_rng(0)
    runs = simulate(RULES[name](generator), environment, marks, num_runs, generator)
    return [round(float(each), 1) for each in runs.regret.mean(axis=1)]


def by_tokens(marks: list[int], num_runs: int) -> dict[str, list[float]]:
    """Eight arms, one of them good: how regret grows with the text."""
    environment = Switching([[GOOD] + [POOR] * 7], draft_length=DRAFT_LENGTH)
    figures = {name: regret(environment, name, marks, num_runs) for name in RULES}
    rows = [[name, *values] for name, values in figures.items()]
    title = "regret in rounds by tokens, 8 arms"
    print_table(title, ["", *map(str, marks)], rows)
    labels = ("tokens", "rounds beyond the best arm's")
    draw_lines("regret_tokens.png", title, {"": figures}, marks, labels, log=True)
    return figures


def by_arms(num_tokens: int, num_runs: int) -> dict[str, list[float]]:
    """One good arm among more and more."""
    environments = [Switching([[GOOD] + [POOR] * (n - 1)]) for n in NUM_ARMS]
    figures = {
        name: [regret(each, name, [num_tokens], num_runs)[0] for each in environments]
        for name in RULES
    }
    rows = [[name, *values] for name, values in figures.items()]
    title = f"regret in rounds by arms, {num_tokens} tokens"
    print_table(title, ["", *map(str, NUM_ARMS)], rows)
    labels = ("arms", "rounds beyond the best arm's")
    draw_lines("regret_arms.png", title, {"": figures}, NUM_ARMS, labels, log=True)
    return figures


def changing(num_tokens: int, num_runs: int) -> dict[str, dict[str, float]]:
    """Arms that change places in mid-text: rounds by those of arms that never change (1 is as if
    one knew the best arm at any time)."""
    poor = [POOR] * 6
    environments: dict[str, Environment] = {
        "switch": Switching([[GOOD, POOR, *poor], [POOR, GOOD, *poor]], [num_tokens // 2]),
        "drift": Drifting([GOOD, POOR, *poor], [POOR, GOOD, *poor], num_tokens),
    }
    figures: dict[str, dict[str, float]] = {name: {} for name in RULES}
    for kind, environment in environments.items():
        steps = np.arange(0, num_tokens)
        rates = environment.accept_rates(steps).max(axis=1)
        best = float((1 / mean_emitted(rates, environment.draft_length)).sum())
        for name in RULES:
            generator = np.random.default_rng(0)
            rule = RULES[name](generator)
            runs = simulate(rule, environment, [num_tokens], num_runs, generator)
            figures[name][kind] = round(float(runs.rounds.mean()) / best, 3)
    rows = [[name, *values.values()] for name, values in figures.items()]
    print_table("rounds by those of the best arm at any time", ["", *environments], rows)
    return figures


if __name__ == "__main__":
    sys.exit(main())
