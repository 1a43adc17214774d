"""What one target replica counted since it started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cluster.statistics.exchange import ExchangeCounters
from deployments.latencies import Latencies
from engine.counters import EngineCounters


@dataclass(frozen=True, slots=True)
class DrafterNote:
    """Of a drafter that is not there yet, or cannot be loaded."""

    state: Literal["loading", "failed"]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TargetCounters:
    """`drafters` says more of some of them than the engine knows."""

    engine: EngineCounters
    latencies: Latencies
    statistics: ExchangeCounters = field(default_factory=ExchangeCounters)
    drafters: Mapping[str, DrafterNote] = field(default_factory=dict)

    @property
    def drafter_states(self) -> dict[str, str]:
        notes = {name: note.state for name, note in self.drafters.items()}
        return {**self.engine.drafter_states, **notes}
