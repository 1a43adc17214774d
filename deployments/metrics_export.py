"""A replica's families through Ray's exporter, which Prometheus scrapes on every node.

Ray's counters take what is new, and its histograms single observations, of which they keep no more
than the bucket: there a sum is that of the buckets' middles.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from deployments.latencies import Histogram
from deployments.metric_families import Family, Labels

PREFIX = "hedgerow_"
"""Ray puts `ray_` before it, and takes no colon; see k8s/components/monitoring/pod-monitor.yaml."""

EXPORT_EVERY_S = 5.0

logger = logging.getLogger(__name__)


class Instruments(Protocol):
    """Ray's, made when they are first used."""

    def count(self, family: Family, labels: Labels, more: float) -> None: ...

    def set(self, family: Family, labels: Labels, value: float) -> None: ...

    def observe(self, family: Family, value: float) -> None: ...


class RayInstruments:
    """Inside a Serve replica, whose labels they get: deployment, replica, application."""

    def __init__(self) -> None:
        from ray.serve import metrics

        self._ray: Any = metrics
        self._made: dict[str, Any] = {}

    def count(self, family: Family, labels: Labels, more: float) -> None:
        counter, tags = self._of(self._ray.Counter, family), _tags(family, labels)
        if more > 0:
            counter.inc(more, tags=tags)
        else:  # which `inc` refuses; but Prometheus sees no increase of what was not there before
            counter._record(0, tags=tags)

    def set(self, family: Family, labels: Labels, value: float) -> None:
        self._of(self._ray.Gauge, family).set(value, tags=_tags(family, labels))

    def observe(self, family: Family, value: float) -> None:
        self._of(self._ray.Histogram, family).observe(value)

    def _of(self, kind: Callable[..., Any], family: Family) -> Any:
        if family.name not in self._made:
            facts: dict[str, object] = {"description": family.text}
            if family.labels:
                facts["tag_keys"] = family.labels
            if family.kind == "histogram":
                facts["boundaries"] = list(family.histogram.bounds)
            self._made[family.name] = kind(PREFIX + family.name, **facts)
        return self._made[family.name]


def _tags(family: Family, labels: Labels) -> dict[str, str]:
    return dict(zip(family.labels, labels, strict=True))


class Exporter:
    """Hands on what has changed since the last time."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._counted: dict[tuple[str, Labels], float] = {}
        self._observed: dict[str, list[int]] = {}

    def export(self, families: Iterable[Family]) -> None:
        for family in families:
            if family.kind == "histogram":
                self._observe(family, family.histogram)
            elif family.kind == "counter":
                self._count(family)
            else:
                for labels, value in family.samples.items():
                    self._instruments.set(family, labels, value)

    def _count(self, family: Family) -> None:
        for labels, value in family.samples.items():
            key = family.name, labels
            more = value - self._counted.get(key, 0.0)
            if more > 0 or key not in self._counted:
                self._instruments.count(family, labels, more)
                self._counted[key] = value

    def _observe(self, family: Family, histogram: Histogram) -> None:
        before = self._observed.get(family.name, [0] * len(histogram.counts))
        bounds = (*histogram.bounds, 2 * histogram.bounds[-1])  # the last for what is beyond
        for bound, count, known in zip(bounds, histogram.counts, before, strict=True):
            for _ in range(count - known):
                self._instruments.observe(family, bound)
        self._observed[family.name] = list(histogram.counts)


class ExportThread:
    """Exports what `read` gives every few seconds, until it is stopped; `read` may fail."""

    def __init__(self, read: Callable[[], Sequence[Family]], instruments: Instruments) -> None:
        self._read = read
        self._exporter = Exporter(instruments)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        was_well = True
        while not self._stopping.wait(EXPORT_EVERY_S):
            try:
                self._exporter.export(self._read())
                was_well = True
            except Exception as error:
                if was_well:
                    logger.warning("no metrics: %s: %s", type(error).__name__, error)
                was_well = False
