"""`python -m benchmarks.peers.engine_worker`: our own engine without Ray and HTTP around it.

The drafters and the target's room are those of `ray_config.yaml`, all in this process, on as many
threads as there are for all systems. Every cell is another tenant's: none finds the prefixes or
answers of one before.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import is_quick
from benchmarks.peers.answers import Answer
from benchmarks.peers.worker import work
from benchmarks.peers.workload import Cell, Job
from cluster.yaml_file import read_yaml
from engine.build import build_engine
from engine.config import DrafterConfig, TargetConfig
from engine.engine import Engine
from engine.request import Emission, GenerationRequest, SamplingParams, SpeculationOptions
from policies.arms import Arms, draft_lengths_up_to
from policies.cost_model import ArmPrices
from policies.fixed import FixedSelector
from policies.rule import RuleSelector
from policies.selector import Selector
from policies.survival import SurvivalSelector

CONFIG = Path(__file__).parents[2] / "ray_config.yaml"
FIXED_LENGTHS = (5,) if is_quick() else (2, 5, 16)
RULE = ("suffix", "lookup")
RULE_LENGTH = 16
GREEDY = SamplingParams(temperature=0.0)


def served() -> dict[str, Any]:
    """The `args` of `ray_config.yaml`."""
    document: Any = read_yaml(CONFIG)
    args: dict[str, Any] = document["applications"][0]["args"]
    return args


def fixed_arms() -> dict[str, tuple[str, int]]:
    """By mode: every drafter that is served, at every length that it can give."""
    return {
        f"{entry['name']} {length}": (entry["name"], length)
        for entry in served()["drafters"]
        for length in draft_lengths_up_to(entry["max_draft_length"], FIXED_LENGTHS)
    }


def _without_host(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "host"}


class Bench:
    """A mode names the selector."""

    def __init__(self, num_threads: int) -> None:
        args = served()
        drafters = [DrafterConfig(**_without_host(entry)) for entry in args["drafters"]]
        target = TargetConfig(**{**args["target"], "num_threads": num_threads})
        self._engine: Engine = build_engine(target, drafters)
        longest = {drafter.name: drafter.max_draft_length for drafter in drafters}
        arms = Arms({name: draft_lengths_up_to(most) for name, most in longest.items()})
        named: dict[str, Selector] = {
            "plain": FixedSelector(),
            "rule": RuleSelector(RULE, RULE_LENGTH),
            "survival": SurvivalSelector(
                arms, ArmPrices(self._engine.costs, arms), np.random.default_rng(0)
            ),
        }
        named |= {mode: FixedSelector(*arm) for mode, arm in fixed_arms().items()}
        self._engine.use_selectors(FixedSelector(), named)  # none would decode all plainly
        self._tenants = itertools.count()

    def answer(self, cell: Cell, mode: str) -> list[Answer]:
        return _Run(self._engine, cell, mode, f"cell {next(self._tenants)}").answers()


class _Run:
    """One cell as it is decoded."""

    def __init__(self, engine: Engine, cell: Cell, mode: str, tenant: str) -> None:
        self._engine, self._cell, self._tenant = engine, cell, tenant
        drafters = () if mode == "plain" else None
        self._speculation = SpeculationOptions(drafters=drafters, selector=mode)
        self._answers = [Answer(job.domain) for job in cell.jobs]
        self._start_s = time.perf_counter()
        self._num_live = 0

    def answers(self) -> list[Answer]:
        waiting = deque(enumerate(self._cell.jobs))
        while waiting or self._num_live:
            while waiting and self._is_due(waiting[0][0]):
                self._submit(*waiting.popleft())
            if self._num_live:
                for emission in self._engine.step():
                    self._note(emission)
            else:
                time.sleep(max(0.0, self._cell.arrivals_s[waiting[0][0]] - self._now_s()))
        return self._answers

    def _now_s(self) -> float:
        return time.perf_counter() - self._start_s

    def _is_due(self, i: int) -> bool:
        times = self._cell.arrivals_s
        return times[i] <= self._now_s() if times else self._num_live < self._cell.num_streams

    def _submit(self, i: int, job: Job) -> None:
        times = self._cell.arrivals_s
        self._answers[i].started_s = times[i] if times else self._now_s()
        self._engine.submit(
            GenerationRequest(
                sequence_id=str(i),
                prompt_ids=job.prompt_ids,
                max_tokens=job.num_tokens,
                sampling=GREEDY,
                tenant=self._tenant,
                ignore_eos=True,
                speculation=self._speculation,
            )
        )
        self._num_live += 1

    def _note(self, emission: Emission) -> None:
        answer = self._answers[int(emission.sequence_id)]
        after_s = self._now_s() - answer.started_s
        answer.first_s = answer.first_s or after_s
        answer.text += emission.text
        answer.num_tokens += len(emission.token_ids)
        if emission.finish_reason is not None:
            answer.total_s = after_s
            answer.num_rounds = emission.use.num_rounds
            self._num_live -= 1


if __name__ == "__main__":
    work(Bench(int(os.environ["OMP_NUM_THREADS"])).answer)
