"""What a round costs, as selectors see it: seconds by drafter and draft length at a load."""

from __future__ import annotations

from typing import Protocol

from policies.arms import Floats
from policies.selector import Load


class Prices(Protocol):
    """Prices a round of one sequence among those of the step."""

    def seconds(self, load: Load) -> Floats:
        """Entry [d, k] is the price of k tokens from drafter d, in the order of `Arms.names`.

        Entry [d, 0] is that of plain decoding, the sequence's share of the step; longer drafts
        add what they add to the step. Shape [1 + num_drafters, 1 + max_length].
        """
        ...

    def evaluation_seconds(self, load: Load) -> Floats:
        """What it costs to score each drafter at one position to its full length, in that order."""
        ...


class FixedPrices:
    """The same tables at every load."""

    def __init__(self, table: Floats, evaluation_seconds: Floats) -> None:
        self.table = table
        self._evaluation_seconds = evaluation_seconds

    def seconds(self, load: Load) -> Floats:
        return self.table

    def evaluation_seconds(self, load: Load) -> Floats:
        return self._evaluation_seconds
