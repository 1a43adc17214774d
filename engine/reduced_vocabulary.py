"""A part of the target's vocabulary, for small drafters: most of their cost is the output layer.

Every token can be read, those outside the part all as one and the same; only the part is drafted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.noise import Hashes, spread


class ReducedVocabulary:
    """`ids` of the target's `full_size` ids, ascending; place len(ids) stands for all others."""

    def __init__(self, ids: Sequence[int] | NDArray[np.integer], full_size: int) -> None:
        self.ids: NDArray[np.int64] = np.asarray(ids, np.int64)
        self.full_size = full_size
        if not len(self.ids) or (np.diff(self.ids) <= 0).any():
            raise ValueError("the ids of a reduced vocabulary must be ascending, and some")
        if self.ids[0] < 0 or self.ids[-1] >= full_size:
            raise ValueError(
                f"ids must be in [0, {full_size}); found {self.ids[0]}, {self.ids[-1]}"
            )
        self.spread_ids: Hashes = spread(self.ids)
        self._places: NDArray[np.int64] = np.full(full_size, len(self.ids), np.int64)
        self._places[self.ids] = np.arange(len(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, tokens: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        """Where the tokens are in `ids`; len(ids) if they are not."""
        found: NDArray[np.int64] = self._places[np.asarray(tokens, np.int64)]
        return found

    def expand(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [num_rows, len(ids)] -> [num_rows, full_size]; -inf for what cannot be drafted."""
        full = np.full((len(rows), self.full_size), -np.inf, np.float32)
        full[:, self.ids] = rows
        return full
