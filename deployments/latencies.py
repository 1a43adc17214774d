"""Histograms of a target's requests, as counts that add up over replicas."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.request import Emission

BOUNDS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0),
)
BOUNDS_TOKENS = tuple(float(2**i) for i in range(18))


@dataclass(slots=True)
class Histogram:
    """`counts[i]` observations lie in (bounds[i-1], bounds[i]]; the last has no upper bound."""

    bounds: tuple[float, ...] = BOUNDS_S
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float, count: int = 1) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += count
        self.total += value * count

    def add(self, other: Histogram) -> None:
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> Histogram:
        return Histogram(self.bounds, list(self.counts), self.total)


def _of_tokens() -> Histogram:
    return Histogram(BOUNDS_TOKENS)


@dataclass(slots=True)
class Latencies:
    """What requests waited for, how long they were, and how they ended."""

    first_token: Histogram = field(default_factory=Histogram)
    between_tokens: Histogram = field(default_factory=Histogram)
    whole_request: Histogram = field(default_factory=Histogram)
    prompt_tokens: Histogram = field(default_factory=_of_tokens)
    generated_tokens: Histogram = field(default_factory=_of_tokens)
    num_finished: dict[str, int] = field(default_factory=dict)

    @property
    def histograms(self) -> Mapping[str, Histogram]:
        """Under vLLM's names."""
        return {
            "time_to_first_token_seconds": self.first_token,
            "inter_token_latency_seconds": self.between_tokens,
            "e2e_request_latency_seconds": self.whole_request,
            "request_prompt_tokens": self.prompt_tokens,
            "request_generation_tokens": self.generated_tokens,
        }

    def count_finished(self, reason: str, count: int = 1) -> None:
        self.num_finished[reason] = self.num_finished.get(reason, 0) + count


class Stopwatch:
    """Times the sequences of one call, which all start at `start_s`."""

    def __init__(self, latencies: Latencies, start_s: float) -> None:
        self._latencies = latencies
        self._start_s = start_s
        self._last_s: dict[str, float] = {}
        self._num_tokens: dict[str, int] = {}

    def note(self, emissions: Iterable[Emission], now_s: float) -> None:
        """A round of several tokens counts as that many equal waits."""
        for emission in emissions:
            key, num_tokens = emission.sequence_id, len(emission.token_ids)
            last_s = self._last_s.get(key)
            if last_s is None:
                self._latencies.first_token.observe(now_s - self._start_s)
            elif num_tokens:
                wait_s = (now_s - last_s) / num_tokens
                self._latencies.between_tokens.observe(wait_s, num_tokens)
            self._last_s[key] = now_s
            self._num_tokens[key] = self._num_tokens.get(key, 0) + num_tokens
            if emission.finish_reason is not None:
                self._latencies.whole_request.observe(now_s - self._start_s)
                self._latencies.prompt_tokens.observe(emission.num_prompt_tokens)
                self._latencies.generated_tokens.observe(self._num_tokens[key])
                self._latencies.count_finished(emission.finish_reason)
