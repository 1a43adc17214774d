"""What a replica measures, as families of named samples: the one list of the metrics there are.

`/metrics` adds up those of all replicas, and each replica hands its own to Ray's exporter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cluster.statistics.exchange import ExchangeCounters
from cluster.statistics.health import StoreHealth
from deployments.latencies import Histogram, Latencies
from deployments.target_counters import TargetCounters
from engine.counters import DrafterHindsight, EngineCounters
from engine.request import DrafterUse

Labels = tuple[str, ...]
Kind = Literal["counter", "gauge", "largest", "histogram"]
"""Of gauges of several replicas the sum is of interest, or else the largest."""

_DRAFTER_STATES = ("ready", "disabled", "resting", "away")


@dataclass(frozen=True, slots=True)
class Family:
    """`samples` are by the values of `labels`, in their order; counters' only grow.

    A counter's name is without the `_total` that it is shown with. Histograms have no labels.
    """

    kind: Kind
    name: str
    text: str
    labels: Labels = ()
    samples: Mapping[Labels, float] = field(default_factory=dict)
    histogram: Histogram = field(default_factory=Histogram)

    @property
    def shown_names(self) -> list[str]:
        """Those that a query can use, after the prefix."""
        if self.kind == "histogram":
            return [f"{self.name}_{part}" for part in ("bucket", "sum", "count")]
        return [f"{self.name}_total" if self.kind == "counter" else self.name]


def target_families(target: TargetCounters) -> list[Family]:
    """Of one target replica."""
    engine = target.engine
    return [
        *_engine(engine),
        *_drafters(engine),
        *_tenants(engine),
        *_hindsight(engine.hindsight),
        *_statistics(target.statistics),
        *_latencies(target.latencies),
    ]


def store_families(health: StoreHealth) -> list[Family]:
    """Of the router, about the Redis of the statistics."""
    return _redis("redis", "the statistics'", health)


def tenants_store_families(health: StoreHealth) -> list[Family]:
    """Of the router, about the Redis of tenants; in Ray's exporter alone."""
    return _redis("tenants_redis", "the tenants'", health)


def _redis(name: str, whose: str, health: StoreHealth) -> list[Family]:
    return [
        _gauge(f"{name}_up", f"Whether {whose} Redis answers.", health.is_up),
        _gauge(f"{name}_used_memory_bytes", "Memory that it uses.", health.used_memory_bytes),
        _gauge(f"{name}_max_memory_bytes", "Its limit; 0 is none.", health.max_memory_bytes),
        _gauge(f"{name}_keys", "Keys in it.", health.num_keys),
        _counter(f"{name}_evicted_keys", "Keys that it threw away.", health.num_evicted_keys),
    ]


def ingress_families(
    num_requests: Mapping[Labels, float],
    num_refused: Mapping[Labels, float],
    num_prompt_tokens: Mapping[Labels, float],
) -> list[Family]:
    """Of one ingress replica; by tenant, and refusals by reason too."""
    name, by_reason = ("tenant",), ("tenant", "reason")
    text = "Requests for answers, by tenant; of many tenants only some have a name."
    requests = Family("counter", "tenant_requests", text, name, num_requests)
    text = "Requests for answers that were refused, by the error's code."
    refusals = Family("counter", "tenant_refusals", text, by_reason, num_refused)
    text = "Prompt tokens of answers that ended."
    return [
        requests,
        refusals,
        Family("counter", "tenant_prompt_tokens", text, name, num_prompt_tokens),
    ]


def added_up(families: Iterable[Family]) -> list[Family]:
    """Those of several replicas as one of each name, in the order of their first."""
    found: dict[str, Family] = {}
    for family in families:
        before = found.get(family.name)
        found[family.name] = family if before is None else _sum(before, family)
    return list(found.values())


def _sum(one: Family, other: Family) -> Family:
    samples = dict(one.samples)
    for labels, value in other.samples.items():
        before = samples.get(labels, 0.0)
        samples[labels] = max(before, value) if one.kind == "largest" else before + value
    histogram = one.histogram.copy()
    if one.kind == "histogram":
        histogram.add(other.histogram)
    return Family(one.kind, one.name, one.text, one.labels, samples, histogram)


def _gauge(name: str, text: str, value: float) -> Family:
    return Family("gauge", name, text, (), {(): value})


def _largest(name: str, text: str, value: float) -> Family:
    return Family("largest", name, text, (), {(): value})


def _counter(name: str, text: str, value: float) -> Family:
    return Family("counter", name, text, (), {(): value})


def _per_drafter(kind: Kind, name: str, text: str, values: Mapping[str, float]) -> Family:
    samples: dict[Labels, float] = {(drafter,): value for drafter, value in sorted(values.items())}
    return Family(kind, name, text, ("drafter",), samples)


def _engine(engine: EngineCounters) -> Iterator[Family]:
    num_blocks, num_used = engine.num_kv_blocks, engine.num_kv_blocks_used
    used = num_used / num_blocks if num_blocks else 0.0
    yield _gauge("target_replicas", "Target replicas that answer.", 1)
    yield _gauge("num_requests_running", "Sequences in the running batch.", engine.num_running)
    yield _gauge("num_requests_waiting", "Sequences that wait for room.", engine.num_waiting)
    yield _largest("kv_cache_usage_perc", "Share of KV blocks in use, 1 is all.", used)
    yield _counter("prompt_tokens", "Prompt tokens of sequences.", engine.num_prompt_tokens)
    yield _counter("generation_tokens", "Tokens emitted.", engine.num_emitted_tokens)
    text = "Target forwards that emitted tokens, counted per sequence."
    yield _counter("rounds", text, engine.num_rounds)
    text = "Sequences put back to make room."
    yield _counter("num_preemptions", text, engine.num_preemptions)
    text = "Sequences ended, in any way."
    yield _counter("num_requests_finished", text, engine.num_requests_finished)
    text = "Prompt tokens looked up in the prefix cache."
    yield _counter("prefix_cache_queries", text, engine.num_prompt_tokens)
    text = "Prompt tokens found in the prefix cache."
    yield _counter("prefix_cache_hits", text, engine.num_cached_tokens)


_USES = {
    "num_drafts": ("num_rounds", "Drafts that were verified."),
    "num_draft_tokens": ("num_draft_tokens", "Draft tokens that were verified."),
    "num_accepted_tokens": ("num_accepted_tokens", "Draft tokens that were accepted."),
}


def _drafters(engine: EngineCounters) -> Iterator[Family]:
    for name, (attribute, text) in _USES.items():
        values = {d: getattr(use, attribute) for d, use in engine.per_drafter.items()}
        yield _per_drafter("counter", f"spec_decode_{name}", text, values)
    at: dict[Labels, float] = {(str(i),): float(n) for i, n in enumerate(engine.num_accepted_at)}
    text = "Draft tokens that were accepted, by place in their draft."
    name = "spec_decode_num_accepted_tokens_per_pos"
    yield Family("counter", name, text, ("position",), at)
    text = "Drafts refused as impossible."
    yield _per_drafter("counter", "drafter_failures", text, engine.num_drafter_failures)
    states: dict[Labels, float] = {
        (drafter, state): float(state == now)
        for drafter, now in sorted(engine.drafter_states.items())
        for state in _DRAFTER_STATES
    }
    text = "Targets for which a drafter is in this state; resting is an open breaker."
    yield Family("gauge", "drafter_state", text, ("drafter", "state"), states)


def _tenants(engine: EngineCounters) -> Iterator[Family]:
    tenants = sorted(engine.per_tenant.items())
    rounds: dict[Labels, float] = {(name,): float(use.num_rounds) for name, use in tenants}
    text = "Rounds, by tenant; of many tenants only some have a name."
    yield Family("counter", "tenant_rounds", text, ("tenant",), rounds)
    tokens: dict[Labels, float] = {(name,): float(use.num_emitted_tokens) for name, use in tenants}
    yield Family("counter", "tenant_generation_tokens", "Tokens emitted.", ("tenant",), tokens)
    for name, (attribute, text) in _USES.items():
        samples: dict[Labels, float] = {
            (tenant, drafter): float(getattr(use, attribute))
            for tenant, total in tenants
            for drafter, use in sorted(total.per_drafter.items())
        }
        labels = ("tenant", "drafter")
        yield Family("counter", f"tenant_spec_decode_{name}", text, labels, samples)


_HINDSIGHT = {
    "evaluations": ("num_evaluations", "Positions at which an unchosen drafter was scored."),
    "evaluation_seconds": ("seconds", "Time that scoring unchosen drafters took."),
    "hindsight_rounds": ("num_compared", "Rounds whose choice can be compared with this drafter."),
    "hindsight_accepted_tokens": ("num_accepted", "Tokens it would have had accepted there."),
    "hindsight_chosen_tokens": ("num_accepted_of_chosen", "Tokens the choice had accepted there."),
}


def _hindsight(found: Mapping[str, DrafterHindsight]) -> Iterator[Family]:
    for name, (attribute, text) in _HINDSIGHT.items():
        values = {drafter: getattr(each, attribute) for drafter, each in found.items()}
        yield _per_drafter("counter", name, text, values)
    unheard = {drafter: each.num_decisions_unheard for drafter, each in found.items()}
    text = "Decisions since a selector last heard how this drafter does."
    yield _per_drafter("largest", "drafter_unheard_decisions", text, unheard)


def _statistics(counters: ExchangeCounters) -> Iterator[Family]:
    tally = counters.writer
    yield _counter("statistics_cells_sent", "Counts that the store took.", tally.num_sent)
    yield _counter("statistics_cells_lost", "Counts that no store will have.", tally.num_lost)
    text = "Counts that found no room here."
    yield _counter("statistics_cells_refused", text, tally.num_refused)
    text = "Times that the store had lost something."
    yield _counter("statistics_repairs", text, tally.num_repairs)
    yield _counter("statistics_failures", "Exchanges that failed.", counters.num_failures)
    text = "Pasts of tenants that vanished."
    yield _counter("statistics_histories_lost", text, counters.num_histories_lost)
    text = "Targets that keep away from the store for a moment, as it failed."
    yield _gauge("statistics_breaker_open", text, counters.is_open)
    if counters.age_s is not None:
        text = "How old what a target knows of the others is."
        yield _largest("statistics_age_seconds", text, counters.age_s)


def _latencies(latencies: Latencies) -> Iterator[Family]:
    finished: dict[Labels, float] = {
        (reason,): float(n) for reason, n in sorted(latencies.num_finished.items())
    }
    text = "Choices finished."
    yield Family("counter", "request_success", text, ("finished_reason",), finished)
    for name, histogram in latencies.histograms.items():
        text = "Measured at the target, from its queue on."
        yield Family("histogram", name, text, histogram=histogram.copy())


def every_family() -> Sequence[Family]:
    """With a sample each, for what must know their names."""
    use = DrafterUse()
    engine = EngineCounters(per_drafter={"any": use}, hindsight={"any": DrafterHindsight()})
    statistics = ExchangeCounters(age_s=0.0)
    target = TargetCounters(engine, Latencies(), statistics)
    stores = [*store_families(StoreHealth()), *tenants_store_families(StoreHealth())]
    return [*target_families(target), *ingress_families({}, {}, {}), *stores]
