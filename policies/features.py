"""The context of a drafter: what is known of it for nothing at a round's start, in a few cells.

Never the joint product over drafters: each drafter has its own cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.arms import Arms, Ints
from policies.selector import Context

CONFIDENCE_EDGES = (0.3, 0.6, 0.85)


@dataclass(frozen=True, slots=True)
class Features:
    """Cells of match length times streak; an edge is the least value of the next bucket.

    Few cells: on recorded traces finer ones were no better with much data and worse with little.
    With `confidence_edges` cells are told apart by confidence too; where it is unknown they are the
    cells that there are without, so that what was learnt is found again.
    """

    match_edges: tuple[int, ...] = (1, 8)
    streak_edges: tuple[int, ...] = (1, 3, 8)
    confidence_edges: tuple[float, ...] = ()

    @property
    def num_cells(self) -> int:
        return self._num_others * self._num_confidences

    @property
    def _num_others(self) -> int:
        return (len(self.match_edges) + 1) * (len(self.streak_edges) + 1)

    @property
    def _num_confidences(self) -> int:
        return len(self.confidence_edges) + 2 if self.confidence_edges else 1

    def least(self, cell: int) -> dict[str, float]:
        """What a cell stands for: the least match length, streak and confidence in it.

        Without `confidence` it is not known, or not looked at.
        """
        confidence, other = divmod(cell, self._num_others)
        match, streak = divmod(other, len(self.streak_edges) + 1)
        found: dict[str, float] = {
            "match_length": (0, *self.match_edges)[match],
            "streak": (0, *self.streak_edges)[streak],
        }
        if confidence:
            found["confidence"] = (0.0, *self.confidence_edges)[confidence - 1]
        return found

    def cells(self, arms: Arms, contexts: Sequence[Context]) -> Ints:
        """The cell of each drafter, in the order of `arms.names`; unknown evidence counts as 0."""
        matches = arms.gather([context.match_lengths for context in contexts])
        streaks = arms.gather([context.streaks for context in contexts])
        match_bucket = np.searchsorted(self.match_edges, matches, side="right")
        streak_bucket = np.searchsorted(self.streak_edges, streaks, side="right")
        cells: Ints = match_bucket * (len(self.streak_edges) + 1) + streak_bucket
        if self.confidence_edges:
            cells = cells + self._num_others * self._confidence_buckets(arms, contexts)
        return cells  # [num_sequences, 1 + num_drafters]

    def _confidence_buckets(self, arms: Arms, contexts: Sequence[Context]) -> Ints:
        """0 where it is not known, else from 1 up."""
        found = [[c.confidences.get(name or "", -1.0) for name in arms.names] for c in contexts]
        table = np.array(found).reshape(len(contexts), len(arms.names))
        buckets = 1 + np.searchsorted(self.confidence_edges, table, side="right")
        return np.where(table < 0, 0, buckets)
