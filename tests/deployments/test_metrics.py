"""Metrics: the same families at /metrics and in Ray's exporter, and nothing is counted twice."""

from __future__ import annotations

import re

import pytest

from cluster.statistics.exchange import ExchangeCounters
from cluster.statistics.health import StoreHealth
from deployments.latencies import BOUNDS_S, Histogram, Latencies, Stopwatch
from deployments.metric_families import (
    Family,
    Labels,
    added_up,
    every_family,
    store_families,
    target_families,
    tenants_store_families,
)
from deployments.metrics import render_metrics
from deployments.metrics_export import Exporter, ExportThread
from deployments.target_counters import TargetCounters
from deployments.tenant_counts import TenantCounts
from engine.counters import DrafterHindsight, EngineCounters
from engine.request import DrafterUse, Emission, SpeculationUse


class FakeInstruments:
    """What an exporter of Ray would show."""

    def __init__(self) -> None:
        self.counted: dict[tuple[str, Labels], float] = {}
        self.gauges: dict[tuple[str, Labels], float] = {}
        self.observed: dict[str, list[float]] = {}

    def count(self, family: Family, labels: Labels, more: float) -> None:
        assert more > 0 or (family.name, labels) not in self.counted
        key = family.name, labels
        self.counted[key] = self.counted.get(key, 0.0) + more

    def set(self, family: Family, labels: Labels, value: float) -> None:
        self.gauges[family.name, labels] = value

    def observe(self, family: Family, value: float) -> None:
        self.observed.setdefault(family.name, []).append(value)


def target(num_rounds: int = 4, age_s: float = 2.0, used: int = 3) -> TargetCounters:
    use = DrafterUse(num_rounds, 3 * num_rounds, 2 * num_rounds)
    engine = EngineCounters(
        num_kv_blocks=10,
        num_kv_blocks_used=used,
        num_rounds=num_rounds,
        per_drafter={"lookup": use},
        drafter_states={"lookup": "ready", "far": "resting"},
        per_tenant={"acme": SpeculationUse(num_rounds, 9, {"lookup": use})},
        num_accepted_at=(2, 1),
        hindsight={"far": DrafterHindsight(3, 0.5, 2, 7, 4, 11)},
    )
    latencies = Latencies()
    stopwatch = Stopwatch(latencies, 0.0)
    stopwatch.note([Emission("a", (1,), "x")], 0.03)
    stopwatch.note([Emission("a", (1, 2), "x", (), "stop", 5)], 0.25)
    return TargetCounters(engine, latencies, ExchangeCounters(age_s=age_s, is_open=True))


def shown(*targets: TargetCounters) -> list[str]:
    families = [family for each in targets for family in target_families(each)]
    return render_metrics(families).decode().splitlines()


def test_of_replicas_counts_are_added_and_ages_are_the_largest() -> None:
    lines = shown(target(4, 2.0, 3), target(6, 9.0, 5))
    assert "hedgerow:rounds_total 10.0" in lines
    assert "hedgerow:target_replicas 2.0" in lines
    assert "hedgerow:statistics_age_seconds 9.0" in lines
    assert "hedgerow:kv_cache_usage_perc 0.5" in lines
    assert "hedgerow:statistics_breaker_open 2.0" in lines


@pytest.mark.parametrize(
    "line",
    [
        'hedgerow:drafter_state{drafter="far",state="resting"} 1.0',
        'hedgerow:drafter_state{drafter="far",state="ready"} 0.0',
        'hedgerow:tenant_rounds_total{tenant="acme"} 4.0',
        'hedgerow:tenant_spec_decode_num_drafts_total{drafter="lookup",tenant="acme"} 4.0',
        'hedgerow:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 1.0',
        'hedgerow:hindsight_accepted_tokens_total{drafter="far"} 7.0',
        'hedgerow:hindsight_chosen_tokens_total{drafter="far"} 4.0',
        'hedgerow:evaluation_seconds_total{drafter="far"} 0.5',
        'hedgerow:drafter_unheard_decisions{drafter="far"} 11.0',
        "hedgerow:request_prompt_tokens_count 1.0",
        "hedgerow:request_generation_tokens_sum 3.0",
        "hedgerow:inter_token_latency_seconds_count 2.0",
    ],
)
def test_what_only_this_system_has_is_shown(line: str) -> None:
    assert line in shown(target())


def test_the_redis_of_the_statistics_is_shown() -> None:
    lines = render_metrics(store_families(StoreHealth(True, 10, 40, 3, 2))).decode().splitlines()
    assert {"hedgerow:redis_up 1.0", "hedgerow:redis_used_memory_bytes 10.0"} <= set(lines)
    assert "hedgerow:redis_evicted_keys_total 3.0" in lines


def test_the_redis_of_tenants_is_told_from_that_of_the_statistics() -> None:
    health = StoreHealth(True, 10, 40, 3, 2)
    text = render_metrics(tenants_store_families(health)).decode()
    assert "hedgerow:tenants_redis_used_memory_bytes 10.0" in text
    assert not {f.name for f in store_families(health)} & {
        f.name for f in tenants_store_families(health)
    }


def test_every_family_that_there_may_be_is_listed() -> None:
    listed = {family.name for family in every_family()}
    stores = [*store_families(StoreHealth()), *tenants_store_families(StoreHealth())]
    counts = TenantCounts().families()
    there = {family.name for family in [*target_families(target()), *counts, *stores]}
    assert there == listed
    assert len(listed) == len(every_family()), "a name is given twice"
    for family in every_family():
        assert re.fullmatch(r"[a-z0-9_]+", family.name)
        assert not family.name.endswith("_total"), "that is put behind counters"
        assert family.text.endswith(".")


def test_an_exporter_shows_what_metrics_shows() -> None:
    """Time after time: counters grow by what is new, histograms by each new observation."""
    instruments = FakeInstruments()
    exporter = Exporter(instruments)
    for _ in range(2):
        exporter.export(target_families(target(4)))
    exporter.export(target_families(target(7, age_s=1.0)))
    assert instruments.counted["rounds", ()] == 7
    assert instruments.counted["tenant_rounds", ("acme",)] == 7
    assert instruments.gauges["statistics_age_seconds", ()] == 1.0
    assert instruments.observed["time_to_first_token_seconds"] == [0.04]  # its bucket's bound
    assert len(instruments.observed["inter_token_latency_seconds"]) == 2


def test_a_counter_begins_at_nothing() -> None:
    """Else its first increase would not be one to Prometheus."""
    instruments = FakeInstruments()
    Exporter(instruments).export(target_families(target()))
    assert instruments.counted["statistics_cells_lost", ()] == 0.0


def test_an_observation_beyond_all_bounds_is_exported_as_one() -> None:
    instruments = FakeInstruments()
    counters = target()
    counters.latencies.whole_request.observe(10_000.0)
    Exporter(instruments).export(target_families(counters))
    observed = instruments.observed["e2e_request_latency_seconds"]
    assert max(observed) > counters.latencies.whole_request.bounds[-1]


def test_families_of_different_replicas_may_have_different_samples() -> None:
    one = Family("counter", "x", "X.", ("a",), {("1",): 1.0})
    other = Family("counter", "x", "X.", ("a",), {("1",): 2.0, ("2",): 5.0})
    (both,) = added_up([one, other])
    assert both.samples == {("1",): 3.0, ("2",): 5.0}
    assert one.samples == {("1",): 1.0}


def test_a_failing_read_does_not_end_the_export(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("deployments.metrics_export.EXPORT_EVERY_S", 0.001)
    answers = iter([RuntimeError("no engine"), RuntimeError("no engine"), None])
    instruments = FakeInstruments()

    def read() -> list[Family]:
        answer = next(answers, None)
        if answer is not None:
            raise answer
        return target_families(target())

    thread = ExportThread(read, instruments)
    while ("rounds", ()) not in instruments.counted:
        assert thread._thread.is_alive()
    thread.stop()
    assert caplog.text.count("no metrics: RuntimeError: no engine") == 1


def test_a_round_of_several_tokens_is_that_many_equal_waits() -> None:
    latencies = Latencies()
    stopwatch = Stopwatch(latencies, 10.0)
    stopwatch.note([Emission("a", (1,), "x")], 10.5)
    stopwatch.note([Emission("a", (1, 2, 3), "x", finish_reason="stop")], 11.1)
    assert latencies.first_token.total == pytest.approx(0.5)
    assert sum(latencies.between_tokens.counts) == 3
    assert latencies.between_tokens.total == pytest.approx(0.6)
    assert latencies.whole_request.total == pytest.approx(1.1)
    assert latencies.num_finished == {"stop": 1}


def test_an_observation_on_a_bound_counts_below_it() -> None:
    histogram = Histogram()
    histogram.observe(BOUNDS_S[3])
    histogram.observe(BOUNDS_S[-1] + 1)
    assert histogram.counts[3] == 1
    assert histogram.counts[-1] == 1
