"""The context of a drafter: what is known of it for nothing at a round's start, in a few cells.

Never the joint product over drafters: each drafter has its own cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.arms import Arms, Ints
from policies.selector import Context


@dataclass(frozen=True, slots=True)
class Features:
    """Cells of match length times streak; an edge is the least value of the next bucket.

    Few cells: on recorded traces finer ones were no better with much data and worse with little.
    """

    match_edges: tuple[int, ...] = (1, 8)
    streak_edges: tuple[int, ...] = (1, 3, 8)

    @property
    def num_cells(self) -> int:
        return (len(self.match_edges) + 1) * (len(self.streak_edges) + 1)

    def cells(self, arms: Arms, contexts: Sequence[Context]) -> Ints:
        """The cell of each drafter, in the order of `arms.names`; unknown evidence counts as 0."""
        matches = arms.gather([context.match_lengths for context in contexts])
        streaks = arms.gather([context.streaks for context in contexts])
        match_bucket = np.searchsorted(self.match_edges, matches, side="right")
        streak_bucket = np.searchsorted(self.streak_edges, streaks, side="right")
        cells: Ints = match_bucket * (len(self.streak_edges) + 1) + streak_bucket
        return cells  # [num_sequences, 1 + num_drafters]
