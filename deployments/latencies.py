"""Latency histograms of a target, as counts that add up over replicas."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.request import Emission

BOUNDS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0),
)


@dataclass(slots=True)
class Histogram:
    """`counts[i]` observations lie in (bounds[i-1], bounds[i]]; the last has no upper bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def observe(self, value_s: float, count: int = 1) -> None:
        self.counts[bisect.bisect_left(BOUNDS_S, value_s)] += count
        self.sum_s += value_s * count

    def add(self, other: Histogram) -> None:
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.sum_s += other.sum_s


@dataclass(slots=True)
class Latencies:
    """What requests waited for, and how they ended."""

    first_token: Histogram = field(default_factory=Histogram)
    between_tokens: Histogram = field(default_factory=Histogram)
    whole_request: Histogram = field(default_factory=Histogram)
    num_finished: dict[str, int] = field(default_factory=dict)

    def add(self, other: Latencies) -> None:
        self.first_token.add(other.first_token)
        self.between_tokens.add(other.between_tokens)
        self.whole_request.add(other.whole_request)
        for reason, count in other.num_finished.items():
            self.count_finished(reason, count)

    def count_finished(self, reason: str, count: int = 1) -> None:
        self.num_finished[reason] = self.num_finished.get(reason, 0) + count


class Stopwatch:
    """Times the sequences of one call, which all start at `start_s`."""

    def __init__(self, latencies: Latencies, start_s: float) -> None:
        self._latencies = latencies
        self._start_s = start_s
        self._last_s: dict[str, float] = {}

    def note(self, emissions: Iterable[Emission], now_s: float) -> None:
        """A round of several tokens counts as that many equal waits."""
        for emission in emissions:
            last_s = self._last_s.get(emission.sequence_id)
            num_tokens = len(emission.token_ids)
            if last_s is None:
                self._latencies.first_token.observe(now_s - self._start_s)
            elif num_tokens:
                wait_s = (now_s - last_s) / num_tokens
                self._latencies.between_tokens.observe(wait_s, num_tokens)
            self._last_s[emission.sequence_id] = now_s
            if emission.finish_reason is not None:
                self._latencies.whole_request.observe(now_s - self._start_s)
                self._latencies.count_finished(emission.finish_reason)
