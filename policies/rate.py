"""Tokens emitted per second now, by load: what a second is worth when a draft is priced."""

from __future__ import annotations

_START_TOKENS = 100.0  # what the guess at the start counts for
_START_SPEEDUP = 1.5  # over plain decoding, as most drafting reaches
_KEPT = 0.9999  # of what is known, with every round


class Rate:
    """Emitted tokens and seconds, both fading, by powers of two of the number of sequences.

    A load that was never seen starts from plain decoding there, times the gain over plain decoding
    at the load nearest to it.
    """

    def __init__(self) -> None:
        self._emitted: dict[int, float] = {}
        self._seconds: dict[int, float] = {}
        self._plain_seconds: dict[int, float] = {}

    def per_second(self, num_sequences: int, plain_s: float) -> float:
        """For rounds whose share of a plain step takes `plain_s`."""
        bucket = num_sequences.bit_length()
        if bucket not in self._seconds:
            self._emitted[bucket] = _START_TOKENS
            self._seconds[bucket] = _START_TOKENS * plain_s / self._gain(bucket)
        self._plain_seconds[bucket] = plain_s
        return self._emitted[bucket] / self._seconds[bucket]

    def observe(self, num_sequences: int, num_rounds: int, emitted: float, seconds: float) -> None:
        """What `num_rounds` rounds emitted, and their shares of the steps' seconds."""
        bucket = num_sequences.bit_length()
        kept = _KEPT**num_rounds
        self._emitted[bucket] = self._emitted.get(bucket, 0.0) * kept + emitted
        self._seconds[bucket] = self._seconds.get(bucket, 0.0) * kept + seconds

    def _gain(self, bucket: int) -> float:
        if not self._plain_seconds:
            return _START_SPEEDUP
        nearest = min(self._plain_seconds, key=lambda other: abs(other - bucket))
        rate = self._emitted[nearest] / self._seconds[nearest]
        return rate * self._plain_seconds[nearest]
