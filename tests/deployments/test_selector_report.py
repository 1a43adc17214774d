"""What operators are told of selectors: settings, arms, tables, shares and regret."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cluster.settings import TargetSettings
from deployments.selector_report import MAX_TABLES, report_selectors
from deployments.selectors import Selectors
from engine.counters import DrafterHindsight, EngineCounters
from engine.request import DrafterUse
from policies.cost_model import CostModel
from policies.features import Features
from policies.selector import Context, Learner, Outcome

LONGEST = {"lookup": 3, "small": 2}


def reported(
    settings: dict[str, Any], tenants: list[str], counters: EngineCounters | None = None
) -> dict[str, Any]:
    """After a round of each of `tenants`, in which a draft was right but for its last token."""
    parsed = TargetSettings.model_validate(settings)
    selectors = Selectors(LONGEST, CostModel())
    default, _ = selectors.build(parsed)
    for tenant in tenants:
        context = Context(f"{tenant}-1", tenant, LONGEST, {"lookup": 9}, {"lookup": 4})
        assert default is not None
        (decision,) = default.choose([context])
        if isinstance(default, Learner):
            num_accepted = max(0, decision.draft_length - 1)
            default.observe([Outcome.of(decision, num_accepted)])
    report = report_selectors(parsed, selectors.built, counters or EngineCounters())
    assert json.loads(json.dumps(report)) == report
    return report


def test_survival_s_tables_have_each_context_by_what_it_stands_for() -> None:
    settings = {"selector": {"name": "survival", "drafters": ["lookup"], "draft_lengths": [3]}}
    report = reported(settings, ["acme"] * 4 + ["bob"])
    (default,) = report["selectors"]
    assert default["name"] is None
    assert default["settings"]["name"] == "survival"
    assert default["arms"] == [
        {"drafter": "none", "draft_length": 0},
        {"drafter": "lookup", "draft_length": 3},
    ]
    assert default["version"] > 0
    assert [table["tenant"] for table in default["tables"]] == ["acme", "bob"]
    (row,) = default["tables"][0]["rows"]
    assert row == {
        "drafter": "lookup",
        "context": {"match_length": 8, "streak": 3},
        "num_at_risk": [4.0, 4.0, 4.0],
        "num_passed": [4.0, 4.0],
    }


@pytest.mark.parametrize("name", ["ucbspec", "exp3spec", "hedge", "normalhedge"])
def test_learners_sums_are_told_arm_by_arm(name: str) -> None:
    report = reported({"selector": {"name": name, "scope": "tenant"}}, ["acme", "bob", "acme"])
    (default,) = report["selectors"]
    assert default["num_tables"] == 2
    acme = default["tables"][0]
    assert acme["tenant"] == "acme"
    assert len(acme["rows"]) == len(default["arms"])
    assert sum(row["chosen"] for row in acme["rows"]) == 2.0


def test_what_belongs_to_one_request_alone_is_not_told() -> None:
    report = reported({"selector": {"name": "ucbspec", "scope": "request"}}, ["acme"])
    (default,) = report["selectors"]
    assert (default["num_tables"], default["tables"]) == (0, [])
    assert "acme-1" not in json.dumps(report)


def test_of_many_tenants_the_tables_with_most_are_told() -> None:
    names = [f"t{i}" for i in range(3 * MAX_TABLES)]
    settings = {"selector": {"name": "survival", "drafters": ["lookup"], "draft_lengths": [3]}}
    report = reported(settings, [*names, names[-1]])
    (default,) = report["selectors"]
    assert default["num_tables"] == len(names)
    assert len(default["tables"]) == MAX_TABLES
    assert default["tables"][0]["tenant"] == names[-1]


def test_named_selectors_and_those_that_learn_nothing_have_their_settings() -> None:
    fixed = {"name": "fixed", "drafter": "lookup", "draft_length": 2}
    report = reported({"selector": fixed, "selectors": {"mine": fixed}, "speculation": "on"}, ["a"])
    assert report["selectors"] == [{"name": name, "settings": fixed} for name in (None, "mine")]


def test_shares_are_of_all_rounds_and_regret_of_those_compared() -> None:
    counters = EngineCounters(
        num_rounds=10,
        per_drafter={"lookup": DrafterUse(6, 20, 10), "small": DrafterUse(1, 2, 1)},
        hindsight={"small": DrafterHindsight(9, 0.1, 4, 10, 4, 0), "lookup": DrafterHindsight()},
    )
    report = reported({}, [], counters)
    assert report["shares"] == {"lookup": 0.6, "small": 0.1, "none": 0.3}
    nothing = {"num_rounds": 0, "num_tokens": 0, "tokens_per_round": 0.0}
    assert report["regret"] == [
        {"drafter": "lookup"} | nothing,
        {"drafter": "small", "num_rounds": 4, "num_tokens": 6, "tokens_per_round": 1.5},
    ]


def test_a_cell_s_least_values_are_those_of_its_buckets() -> None:
    features = Features(confidence_edges=(0.3, 0.6))
    assert features.least(0) == {"match_length": 0, "streak": 0}
    assert features.least(11) == {"match_length": 8, "streak": 8}
    assert features.least(12) == {"match_length": 0, "streak": 0, "confidence": 0.0}
    assert features.least(12 * 3 + 5) == {"match_length": 1, "streak": 1, "confidence": 0.6}


def test_operators_see_every_target_s_selector(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.client.get("/v1/selector")
            assert answer.status_code == 200
            assert answer.json()["object"] == "selector"
            one, other = answer.json()["targets"]
            assert one == other
            assert one["speculation"] == "on"
            assert one["selectors"][0]["settings"]["name"] == "survival"

    asyncio.run(asyncio.wait_for(test(), 30))
