"""`python -m benchmarks.warm_start`: the first 64 tokens of a request on the real model, by table.

The drafters are the lookups and the heads of `models/`. Each prompt is decoded with a selector that
knows nothing, with one that has learnt from prompts of all domains, and with one that has learnt
from those of the other domains; in turns, each time from the very same counts. The last line
printed is one JSON object. QUICK=1: within 60 s.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from benchmarks.machine import describe_machine, is_quick
from benchmarks.prompts import DOMAINS, load_prompts
from benchmarks.spread import Spread, paired_ratios, print_table
from benchmarks.workbench import (
    MODEL,
    PLAIN,
    Ids,
    Mode,
    Run,
    Workbench,
    drafter_configs,
    trained_configs,
)
from engine.config import TargetConfig
from policies.arms import Arms, Floats, draft_lengths_up_to
from policies.cost_model import ArmPrices
from policies.survival import SurvivalSelector

NUM_FIRST = 64
COLD, WARM, SHIFTED = "empty table", "filled by all domains", "filled by the other domains"


@dataclass(frozen=True, slots=True)
class Size:
    """Prompts of each domain that are measured, as many others fill the tables; and repeats."""

    per_domain: int
    num_tokens: int
    repeats: int


FULL = Size(4, NUM_FIRST, 3)
QUICK = Size(1, 16, 1)


class Pupil:
    """A selector whose table is set to given counts before each prompt; what a second is worth goes
    on from prompt to prompt, as in one process."""

    def __init__(self, bench: Workbench, name: str) -> None:
        arms = Arms({name: draft_lengths_up_to(longest) for name, longest in bench.longest.items()})
        prices, generator = ArmPrices(bench.costs, arms), np.random.default_rng(0)
        self.selector = SurvivalSelector(arms, prices, generator)
        self._bench = bench
        self._mode = Mode(name, tuple(bench.longest))
        bench.use_selectors({name: self.selector})

    @property
    def nothing(self) -> Floats:
        return np.zeros(self.selector.table.shape)

    def run(self, prompt: Ids, num_tokens: int) -> Run:
        return self._bench.run([prompt], self._mode, num_tokens, ignore_eos=True)

    def set(self, counts: Floats) -> None:
        self.selector.take()  # so that nothing is left of the prompt before
        self.selector.use({}, counts)

    def learnt(self, prompts: Sequence[Ids], num_tokens: int) -> Floats:
        """The counts after these prompts."""
        self.set(self.nothing)
        for prompt in prompts:
            self.run(prompt, num_tokens)
        return self.selector.take().get("", self.nothing)


def main() -> int:
    size = QUICK if is_quick() else FULL
    heads = [config for config in trained_configs() if config.kind == "head"]
    bench = Workbench(TargetConfig(MODEL, numerics="fast"), [*drafter_configs(None), *heads])
    print(describe_machine())
    teacher = Pupil(bench, "teacher")
    pupils = {name: Pupil(bench, name) for name in (COLD, WARM, SHIFTED)}
    prompts = {
        domain: [
            bench.encode(each.text) for each in islice(load_prompts(domain), 2 * size.per_domain)
        ]
        for domain in DOMAINS
    }
    bench.run([prompts["chat"][0]], PLAIN, 2)  # warms up
    lessons = {
        domain: teacher.learnt(each[size.per_domain :], size.num_tokens)
        for domain, each in prompts.items()
    }
    total: Floats = sum(lessons.values(), teacher.nothing)
    rows: list[list[object]] = []
    figures: dict[str, float] = {}
    for domain, each in prompts.items():
        tables = {COLD: teacher.nothing, WARM: total, SHIFTED: total - lessons[domain]}
        speeds = measure(pupils, tables, each[: size.per_domain], size)
        ratios = {name: paired_ratios(speeds[name], speeds[COLD]) for name in (WARM, SHIFTED)}
        rows.append([domain, Spread.of(speeds[COLD]), *ratios.values()])
        figures |= {f"{domain}, {name}": round(r.median, 3) for name, r in ratios.items()}
    print_table(
        f"tokens/s of the first {size.num_tokens} tokens, prompt by prompt, and against {COLD}",
        ["", COLD, WARM, SHIFTED],
        rows,
    )
    print(json.dumps(figures))
    return 0


def measure(
    pupils: Mapping[str, Pupil], tables: Mapping[str, Floats], prompts: Sequence[Ids], size: Size
) -> dict[str, list[float]]:
    """Tokens/s by table, one for each prompt and repeat."""
    speeds: dict[str, list[float]] = {name: [] for name in tables}
    for repeat in range(size.repeats):
        for prompt in prompts:
            for name in tables if repeat % 2 else reversed(list(tables)):
                pupils[name].set(tables[name])
                run = pupils[name].run(prompt, size.num_tokens)
                speeds[name].append(run.num_decoded / run.decode_s)
    return speeds


if __name__ == "__main__":
    sys.exit(main())
