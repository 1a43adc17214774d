"""Says no for a full target before a request's body is read, as often as the target itself would.

Of the requests that are let through a share f is refused; then f of those that come are refused
here. At ten times what can be answered two thirds never reach the target, whose queue stays full.
With several targets, f is the share over all, so that a full one does not close the others.
"""

from __future__ import annotations

from collections.abc import Callable

from deployments.errors import OverloadedError

GAIN = 0.05  # of the newest outcome
MEMORY_S = 1.0
MIN_SHARE = 0.1  # below, the target may say so itself


class Backpressure:
    """`clock` is monotonic, `uniform` gives a number in [0, 1)."""

    def __init__(self, clock: Callable[[], float], uniform: Callable[[], float]) -> None:
        self._clock = clock
        self._uniform = uniform
        self._share = 0.0
        self._full_s = float("-inf")

    def check(self) -> None:
        """Raises OverloadedError for some of the requests while the target refuses some."""
        if self._clock() - self._full_s > MEMORY_S:
            self._share = 0.0
        if self._share > MIN_SHARE and self._uniform() < self._share:
            raise OverloadedError("more requests come than can be answered")

    def note(self, is_full: bool) -> None:
        """What the target said to one that was let through."""
        self._share += GAIN * (is_full - self._share)
        if is_full:
            self._full_s = self._clock()
