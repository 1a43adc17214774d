"""The contract of learners whose sums add up over processes, whoever carries them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from policies.arms import Floats


class Sharer(Protocol):
    """Learns in arrays of additive sums, by tenant, or under "" for all tenants."""

    def take(self) -> Mapping[str, Floats]:
        """What was learnt here since the last time, by tenant."""
        ...

    def use(self, merged: Mapping[str, Floats], start: Floats) -> None:
        """Goes on from what all have learnt, plus what was learnt here since the last `take`.

        `merged` holds all that was taken here before. Tenants that it lacks go on from `start`.
        """
        ...
