"""Plans and reports of load tests."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from benchmarks.load_client import Record
from benchmarks.load_plan import (
    SCENARIOS,
    Burst,
    PlanError,
    TenantLoad,
    parse_tenants,
    requests,
    scaled,
)
from benchmarks.load_report import jain, page, percentile, summary

QUIET = TenantLoad("quiet", rate_per_s=5.0)


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    times = [request.at_s for request in requests(QUIET, 2000.0, seed=1)]
    assert len(times) == pytest.approx(10_000, rel=0.05)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance == pytest.approx(mean**2, rel=0.1)
    assert times == [request.at_s for request in requests(QUIET, 2000.0, seed=1)]
    assert times != [request.at_s for request in requests(QUIET, 2000.0, seed=2)]


def test_bursts_shares_and_domains_are_those_of_the_plan() -> None:
    tenant = replace(
        QUIET, domains={"code": 3, "chat": 1}, cancel=0.5, stream=0.25, burst=Burst(10.0, 1.0, 8.0)
    )
    found = list(requests(tenant, 3000.0, seed=3))
    inside = sum(request.at_s % 10 < 1 for request in found)
    assert inside / (len(found) - inside) == pytest.approx(8 / 9, rel=0.1)
    shares = {
        0.75: sum(request.prompt.domain == "code" for request in found),
        0.5: sum(request.hangs_up_after is not None for request in found),
        0.25: sum(request.streams for request in found),
    }
    for share, count in shares.items():
        assert count / len(found) == pytest.approx(share, rel=0.1)


def test_a_scenario_can_be_scaled() -> None:
    assert [t.rate_per_s for t in scaled(SCENARIOS["greedy"], 2.0)] == [2.0, 40.0]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], "a list of tenants"),
        ([{"rate_per_s": 1}], "a mapping with a name"),
        ([{"name": "a", "speed": 1}], "a: unknown key 'speed'"),
        ([{"name": "a", "burst": {"x": 1}}], "a: burst: unknown key 'x'"),
        ([{"name": "a", "cancel": 2}], "a: cancel 2: expected 0 to 1"),
        ([{"name": "a", "domains": {"poetry": 1}}], "a: domains ['poetry']"),
        ([{"name": "a", "rate_per_s": 0}], "a: rate_per_s"),
        ([{"name": "a"}, {"name": "a"}], "two tenants have one name"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(document: object, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_tenants(document)
    assert expected in str(caught.value)


def test_fairness_and_ranks() -> None:
    assert jain([2.0, 2.0, 2.0]) == pytest.approx(1.0)
    assert jain([6.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert jain([0.0]) is None
    assert (percentile([], 0.5), percentile([3, 1, 2], 0.5), percentile([3, 1, 2], 0.99)) == (
        None, 2, 3,
    )  # fmt: skip


def records() -> list[Record]:
    done = Record(
        "a", "chat", 1.0, "answered", 200, first_s=0.5, total_s=1.5, num_tokens=11,
        num_rounds=5, num_draft_tokens=10, num_accepted_tokens=6,
    )  # fmt: skip
    return [
        done,
        replace(done, at_s=9.0, total_s=2.5),
        Record("b", "chat", 2.0, "refused", 429, "429", True, total_s=0.01),
        Record("b", "chat", 3.0, "refused", 503, "503", False, total_s=0.03),
        Record("b", "code", 4.0, "failed", 200, "the stream ended early", total_s=1.0),
        Record("b", "code", 5.0, "left", 200, total_s=1.0, num_tokens=3),
    ]


def test_a_summary_counts_what_came_in_time_and_who_did_without() -> None:
    found = summary(records(), {"a": 1.0, "b": 2.0}, 10.0)
    a, b = found["tenants"]["a"], found["tenants"]["b"]
    assert (a["num_answered"], a["requests_per_s"], a["tokens_per_s"]) == (2, 0.1, 1.1)
    assert a["per_token_s"]["p50"] == pytest.approx(0.1)
    assert (a["acceptance"], a["mean_acceptance_length"]) == (0.6, pytest.approx(2.2))
    assert [b[f"num_{name}"] for name in ("answered", "refused", "failed", "left")] == [0, 2, 1, 1]
    assert b["refusal_s"] == {"p50": 0.01, "p99": 0.03}
    assert b["num_without_retry_after"] == 1
    assert b["reasons"] == {"429": 1, "503": 1, "the stream ended early": 1}
    assert found["jain"] == pytest.approx(0.5)
    assert found["all"]["num_requests"] == 6
    json.dumps(found)


def test_the_page_needs_nothing_else_and_repeats_no_markup_of_names() -> None:
    found = summary(records(), {"a": 1.0, "b": 2.0}, 10.0)
    text = page("<script>", found, records())
    assert "<script" not in text
    assert "http" not in text
    assert text.count("<polyline") == 2
