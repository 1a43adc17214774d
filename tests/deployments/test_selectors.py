"""Selectors are built from settings by name, and keep what they learnt when settings change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.settings import TargetSettings
from deployments.selectors import Selectors
from policies.cost_model import CostModel
from policies.fixed import FixedSelector
from policies.learning import LearningSelector
from policies.rule import RuleSelector
from policies.selector import Context, Decision
from policies.survival import SurvivalSelector


def context() -> Context:
    return Context("a", "default", {"lookup": 5}, {})


def test_settings_build_the_selectors_that_they_name() -> None:
    settings = TargetSettings.model_validate(
        {
            "selector": {
                "name": "rule",
                "lookups": ["lookup"],
                "draft_length": 3,
                "otherwise": {"drafter": "small", "draft_length": 2},
            },
            "selectors": {"one": {"name": "fixed", "drafter": "lookup", "draft_length": 4}},
        }
    )
    default, named = selectors().build(settings)
    assert isinstance(default, RuleSelector)
    assert default.choose([context()]) == [Decision("lookup", 3)]
    assert isinstance(named["one"], FixedSelector)
    assert named["one"].choose([context()]) == [Decision("lookup", 4)]


def selectors() -> Selectors:
    return Selectors({"lookup": 8, "small": 3}, CostModel())


LEARNERS: list[dict[str, Any]] = [
    {"name": "ucbspec", "loss": "seconds", "scope": "tenant", "radius_scale": 0.05},
    {"name": "exp3spec", "scope": "global"},
    {"name": "hedge", "rate": 0.3},
    {"name": "normalhedge", "loss": "tokens"},
    {"name": "survival", "evaluation_share": 0.1},
]


@pytest.mark.parametrize("section", LEARNERS, ids=lambda section: str(section["name"]))
@pytest.mark.parametrize("narrow", [{}, {"drafters": ["small"]}, {"draft_lengths": [2, 50]}])
def test_every_learner_can_be_named(section: dict[str, Any], narrow: dict[str, Any]) -> None:
    settings = TargetSettings.model_validate({"selector": section | narrow})
    default, _ = selectors().build(settings)
    assert isinstance(default, LearningSelector | SurvivalSelector)
    arms = set(default.arms.keys) - {("", 0)}
    assert {name for name, _ in arms} == set(narrow.get("drafters", ["lookup", "small"]))
    lengths = {length for name, length in arms if name == "small"}
    assert lengths == ({2, 3} if "draft_lengths" in narrow else {1, 2, 3})
    assert len(default.choose([context()])) == 1


def test_what_was_learnt_outlives_other_settings() -> None:
    made = selectors()
    learner, rule = {"name": "survival"}, {"name": "rule", "lookups": ["lookup"]}
    before, named = made.build(
        TargetSettings.model_validate({"selector": learner, "selectors": {"a": learner, "b": rule}})
    )
    changed = {"name": "survival", "evaluation_share": 0.5}
    after, named_after = made.build(
        TargetSettings.model_validate(
            {"selector": learner, "selectors": {"a": changed, "b": rule}, "speculation": "on"}
        )
    )
    assert after is before
    assert named_after["b"] is named["b"]
    assert named_after["a"] is not named["a"]


def test_without_settings_survival_chooses() -> None:
    default, _ = selectors().build(TargetSettings())
    assert isinstance(default, SurvivalSelector)


def test_speculation_off_leaves_nobody_to_choose() -> None:
    section = {"name": "fixed", "drafter": "lookup", "draft_length": 4}
    settings = {"speculation": False, "selector": section, "selectors": {"one": section}}
    default, _ = selectors().build(TargetSettings.model_validate(settings))
    assert default is None


def test_sums_that_mean_the_same_elsewhere_are_shared() -> None:
    made = selectors()
    sections = {str(section["name"]): section for section in LEARNERS}
    sections["other"] = {"name": "hedge", "scope": "tenant"}
    made.build(TargetSettings.model_validate({"selectors": sections}))
    first = [min(each.layout.cells(np.ones(each.layout.shape))) for each in made.shared]
    assert [name.split("-")[0] for name in first] == [
        "s::0:1:p",  # the default
        "l:exp3spec",
        "s::0:1:p",
        "l:hedge",
    ]
