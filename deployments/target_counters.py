"""What one target replica counted since it started."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.statistics.exchange import ExchangeCounters
from deployments.latencies import Latencies
from engine.counters import EngineCounters


@dataclass(frozen=True, slots=True)
class TargetCounters:
    engine: EngineCounters
    latencies: Latencies
    statistics: ExchangeCounters = field(default_factory=ExchangeCounters)
