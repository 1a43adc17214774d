"""How much better or worse each drafter does on one request than the table says.

A ratio estimate: accepted tokens seen to those expected of the same drafts, shrunk to one. Both
sums stop at a draft's end, so that drafts accepted whole need no care. Old evidence fades.

(A gamma frailty, which raises survival to a power instead, gained less on recorded traces.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies.arms import Floats, Ints
from policies.rows import Rows
from policies.selector import Context


class Correction:
    """One factor per request and drafter on what the table expects.

    `weight` is how many expected tokens "as the table says" counts for; `kept` of the evidence is
    left after each outcome.
    """

    def __init__(self, num_drafters: int, weight: float, kept: float) -> None:
        if weight <= 0 or not 0 < kept <= 1:
            raise ValueError(
                f"weight, kept: {weight}, {kept} are not allowed; expected > 0, and in (0, 1]"
            )
        self._weight = weight
        self._kept = kept
        self._num_drafters = num_drafters
        self._rows = Rows("request", 2, num_drafters)

    def rows(self, contexts: Sequence[Context]) -> Ints:
        return self._rows.of(contexts)

    def factors(self, rows: Ints) -> Floats:
        """By row and drafter."""
        seen, expected = self._rows.sums[rows, 0], self._rows.sums[rows, 1]
        return np.asarray((seen + self._weight) / (expected + self._weight))

    def observe(self, rows: Ints, drafters: Ints, seen: Ints, expected: Floats) -> None:
        """Accepted tokens of one draft each, and what the table expected of it."""
        sums = self._rows.sums.reshape(-1)
        at_seen = rows * 2 * self._num_drafters + drafters
        for places, values in ((at_seen, seen), (at_seen + self._num_drafters, expected)):
            np.multiply.at(sums, places, self._kept)
            np.add.at(sums, places, np.asarray(values, np.float64))

    def free(self, sequence_id: str) -> int | None:
        """Forgets a request and says which row it had."""
        return self._rows.free(sequence_id)
