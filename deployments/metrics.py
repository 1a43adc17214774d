"""`/metrics` in Prometheus' text format: the replicas' counters added up, under vLLM's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from cluster.statistics.exchange import ExchangeCounters
from deployments.latencies import BOUNDS_S, Histogram, Latencies
from deployments.target_counters import TargetCounters
from engine.counters import EngineCounters

CONTENT_TYPE = CONTENT_TYPE_LATEST

_GAUGES = {
    "num_running": ("num_requests_running", "Sequences in the running batch."),
    "num_waiting": ("num_requests_waiting", "Sequences that wait for room."),
}
_COUNTERS = {
    "num_prompt_tokens": ("prompt_tokens", "Prompt tokens of admitted sequences."),
    "num_emitted_tokens": ("generation_tokens", "Tokens emitted."),
    "num_rounds": ("rounds", "Target forwards that emitted tokens, counted per sequence."),
    "num_preemptions": ("num_preemptions", "Sequences put back to make room."),
    "num_requests_finished": ("num_requests_finished", "Sequences ended, in any way."),
}


def render_metrics(targets: Sequence[TargetCounters]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(targets))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, targets: Sequence[TargetCounters]) -> None:
        self._targets = targets

    def collect(self) -> Iterator[Metric]:
        engines = [target.engine for target in self._targets]
        yield _gauge("target_replicas", "Target replicas that answered.", len(engines))
        yield from _engine_metrics(engines)
        yield from _drafter_metrics(engines)
        yield from _failure_metrics(engines)
        yield from _statistics_metrics([target.statistics for target in self._targets])
        latencies = Latencies()
        for target in self._targets:
            latencies.add(target.latencies)
        yield from _latency_metrics(latencies)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"hedgerow:{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"hedgerow:{name}", text, value=value)


def _sum(engines: Iterable[EngineCounters], field: str) -> int:
    return sum(getattr(engine, field) for engine in engines)


def _engine_metrics(engines: Sequence[EngineCounters]) -> Iterator[Metric]:
    for field, (name, text) in _GAUGES.items():
        yield _gauge(name, text, _sum(engines, field))
    for field, (name, text) in _COUNTERS.items():
        yield _counter(name, text, _sum(engines, field))
    num_blocks = _sum(engines, "num_kv_blocks")
    used = _sum(engines, "num_kv_blocks_used") / num_blocks if num_blocks else 0.0
    yield _gauge("kv_cache_usage_perc", "Share of KV blocks in use, 1 is all.", used)
    queries = _sum(engines, "num_prompt_tokens")
    yield _counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", queries)
    hits = _sum(engines, "num_cached_tokens")
    yield _counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.", hits)


def _drafter_metrics(engines: Sequence[EngineCounters]) -> Iterator[Metric]:
    fields = {
        "num_rounds": ("num_drafts", "Drafts that were verified."),
        "num_draft_tokens": ("num_draft_tokens", "Draft tokens that were verified."),
        "num_accepted_tokens": ("num_accepted_tokens", "Draft tokens that were accepted."),
    }
    for field, (name, text) in fields.items():
        family = CounterMetricFamily(f"hedgerow:spec_decode_{name}", text, labels=["drafter"])
        totals: dict[str, int] = {}
        for engine in engines:
            for drafter, use in engine.per_drafter.items():
                totals[drafter] = totals.get(drafter, 0) + getattr(use, field)
        for drafter, total in sorted(totals.items()):
            family.add_metric([drafter], total)
        yield family


def _failure_metrics(engines: Sequence[EngineCounters]) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "hedgerow:drafter_failures", "Drafts refused as impossible.", labels=["drafter"]
    )
    totals: dict[str, int] = {}
    for engine in engines:
        for drafter, count in engine.num_drafter_failures.items():
            totals[drafter] = totals.get(drafter, 0) + count
    for drafter, total in sorted(totals.items()):
        family.add_metric([drafter], total)
    yield family


def _statistics_metrics(targets: Sequence[ExchangeCounters]) -> Iterator[Metric]:
    values: dict[str, tuple[str, Callable[[ExchangeCounters], int]]] = {
        "cells_sent": ("Counts that the store took.", lambda c: c.writer.num_sent),
        "cells_lost": ("Counts that no store will have.", lambda c: c.writer.num_lost),
        "cells_refused": ("Counts that found no room here.", lambda c: c.writer.num_refused),
        "repairs": ("Times that the store had lost something.", lambda c: c.writer.num_repairs),
        "failures": ("Exchanges that failed.", lambda c: c.num_failures),
        "histories_lost": ("Pasts of tenants that vanished.", lambda c: c.num_histories_lost),
    }
    for name, (text, value) in values.items():
        yield _counter(f"statistics_{name}", text, sum(map(value, targets)))


def _latency_metrics(latencies: Latencies) -> Iterator[Metric]:
    finished = CounterMetricFamily(
        "hedgerow:request_success", "Choices finished.", labels=["finished_reason"]
    )
    for reason, count in sorted(latencies.num_finished.items()):
        finished.add_metric([reason], count)
    yield finished
    yield _histogram("time_to_first_token_seconds", latencies.first_token)
    yield _histogram("inter_token_latency_seconds", latencies.between_tokens)
    yield _histogram("e2e_request_latency_seconds", latencies.whole_request)


def _histogram(name: str, histogram: Histogram) -> Metric:
    buckets, total = [], 0
    for bound, count in zip((*BOUNDS_S, "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((str(bound), float(total)))
    text = "Measured at the target, from its queue on."
    return HistogramMetricFamily(
        f"hedgerow:{name}", text, buckets=buckets, sum_value=histogram.sum_s
    )
