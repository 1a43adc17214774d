"""`/metrics` in Prometheus' text format: the replicas' families added up, under vLLM's names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from deployments.latencies import Histogram
from deployments.metric_families import Family, added_up

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "hedgerow:"


def render_metrics(families: Iterable[Family]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(families))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = added_up(families)

    def collect(self) -> Iterator[Metric]:
        yield from map(_metric, self._families)


def _metric(family: Family) -> Metric:
    name = PREFIX + family.name
    if family.kind == "histogram":
        histogram = family.histogram
        buckets, total = _buckets(histogram), histogram.total
        return HistogramMetricFamily(name, family.text, buckets=buckets, sum_value=total)
    labelled = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = labelled(name, family.text, labels=family.labels)
    for labels, value in family.samples.items():
        metric.add_metric(labels, value)
    return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    buckets, total = [], 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((str(bound), float(total)))
    return buckets
