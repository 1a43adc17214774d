"""A circuit breaker: after failures in a row it keeps away for a while, then tries once."""

from __future__ import annotations

from collections.abc import Callable

MAX_FAILURES = 3
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0


class Breaker:
    """`clock` is monotonic, `uniform` gives a number in [0, 1) that spreads the pauses."""

    def __init__(self, clock: Callable[[], float], uniform: Callable[[], float]) -> None:
        self._clock = clock
        self._uniform = uniform
        self._num_failures = 0
        self._opens_s = 0.0

    @property
    def is_open(self) -> bool:
        """Nothing may be tried now."""
        return self._clock() < self._opens_s

    def succeed(self) -> None:
        self._num_failures = 0

    def fail(self) -> None:
        self._num_failures += 1
        extra = self._num_failures - MAX_FAILURES
        if extra >= 0:
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(extra, 16))
            self._opens_s = self._clock() + pause_s * (0.5 + self._uniform() / 2)
