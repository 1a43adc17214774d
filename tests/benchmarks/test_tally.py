"""Ratios are of what was run side by side, and medians pass over one slow repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks import decoding
from benchmarks.spread import Spread, paired_ratios
from benchmarks.tally import Tally
from benchmarks.workbench import RULE, RULE_DRAFT_LENGTH, Run, drafter_configs, trained_configs

CONFIG = Path(__file__).parents[2] / "ray_config.yaml"


def tally_of(*repeats: tuple[float, ...]) -> Tally:
    """One answer of 10 tokens for every time."""
    tally = Tally()
    for repeat, times in enumerate(repeats):
        for total_s in times:
            tally.add(repeat, Run([tuple(range(10))], total_s=total_s), is_different=False)
    return tally


def test_ratios_are_taken_in_pairs() -> None:
    assert paired_ratios([2.0, 30.0, 4.0], [1.0, 10.0, 2.0]) == Spread(2.0, 2.0, 3.0)


def test_one_slow_repeat_of_a_prompt_does_not_count() -> None:
    fast = tally_of((1.0, 1.0), (1.0, 9.0), (1.0, 1.0))
    assert fast.tokens_per_s.median == pytest.approx(10.0)
    assert fast.tokens_per_s.low == pytest.approx(2.0)
    slow = tally_of((2.0, 2.0), (2.0, 2.0), (2.0, 2.0))
    assert fast.speedup_over(slow).median == pytest.approx(2.0)


def test_a_side_with_fewer_repeats_is_compared_with_the_same_repeats() -> None:
    once = tally_of((1.0,))
    often = tally_of((2.0,), (8.0,), (8.0,))
    assert once.speedup_over(often) == Spread(2.0, 2.0, 2.0)


def test_counts_give_acceptance() -> None:
    tally = Tally()
    run = Run([(1, 2, 3)], 1.0, decode_s=0.5, forward_s=0.4, num_rounds=2, num_decoded=6,
              num_draft_tokens=8, num_accepted_tokens=4)  # fmt: skip
    tally.add(0, run, is_different=True)
    assert (tally.mean_acceptance_length, tally.acceptance, tally.num_different) == (3.0, 0.5, 1)
    assert tally.overhead_ms == [pytest.approx(50.0)]


def test_the_benchmarks_measure_the_rule_and_the_drafters_that_are_served() -> None:
    (application,) = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["applications"]
    (target,) = [d for d in application["deployments"] if d["name"] == "Target"]
    selector = target["user_config"]["selectors"]["rule"]
    assert selector["name"] == RULE.name
    assert tuple(selector["lookups"]) == RULE.drafters
    assert selector["draft_length"] == RULE_DRAFT_LENGTH
    served = [
        (d["name"], d["kind"], d["max_draft_length"]) for d in application["args"]["drafters"]
    ]
    measured = [
        (d.name, d.kind, d.max_draft_length) for d in [*drafter_configs(None), *trained_configs()]
    ]
    assert sorted(served) == sorted(measured)
    assert application["args"]["target"]["numerics"] == "fast"


class NoBench:
    """Takes a workbench's place where nothing is measured."""

    def __init__(self, *args: object) -> None:
        pass


def test_the_last_line_is_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "resolve_model", Path)
    monkeypatch.setattr(decoding, "write_shallow_model", lambda source, num_layers, folder: folder)
    monkeypatch.setattr(decoding, "Workbench", NoBench)
    monkeypatch.setattr(decoding, "measure", lambda bench, size: {"plain_vs_generate": 1.23456})
    assert decoding.main() == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"plain_vs_generate": 1.2346}
