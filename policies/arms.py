"""The arms of a learner: pairs of drafter and draft length as arrays, plain decoding first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from policies.selector import Context

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


USUAL_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)


def draft_lengths_up_to(longest: int, wanted: Sequence[int] = USUAL_LENGTHS) -> tuple[int, ...]:
    """`wanted`, those beyond `longest` cut to it; the usual ones always reach it."""
    lengths = wanted if wanted is not USUAL_LENGTHS else (*wanted, longest)
    return tuple(sorted({min(length, longest) for length in lengths}))


class Arms:
    """Drafter 0 and arm 0 are "none", of length 0; then each drafter's lengths, ascending.

    `drafters[a]` and `lengths[a]` describe arm a. Immutable: arms come and go with a new object.
    """

    def __init__(self, draft_lengths: Mapping[str, Sequence[int]]) -> None:
        for name, lengths in draft_lengths.items():
            if not lengths or min(lengths) < 1:
                raise ValueError(
                    f"draft lengths of {name}: {lengths} are not allowed; expected >= 1"
                )
        self.names: tuple[str | None, ...] = (None, *draft_lengths)
        self.index = {name: i for i, name in enumerate(self.names)}
        pairs = [(0, 0)]
        for i, lengths in enumerate(draft_lengths.values(), start=1):
            pairs += [(i, length) for length in sorted(set(lengths))]
        table = np.array(pairs, np.int64)
        self.drafters: Ints = table[:, 0]
        self.lengths: Ints = table[:, 1]
        self.max_length = max(1, int(table[:, 1].max()))  # so that no array is empty

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def keys(self) -> list[tuple[str, int]]:
        """What names each arm in a store."""
        return [
            (self.names[d] or "", int(k)) for d, k in zip(self.drafters, self.lengths, strict=True)
        ]

    def gather(self, values: Sequence[Mapping[str, int]]) -> Ints:
        """Each sequence's values as a row, in the order of `names`; 0 where there is none."""
        table = np.zeros((len(values), len(self.names)), np.int64)
        rows, columns, cells = [], [], []
        index = self.index
        for row, by_name in enumerate(values):
            for name, value in by_name.items():
                column = index.get(name)
                if column is not None:
                    rows.append(row)
                    columns.append(column)
                    cells.append(value)
        if rows:
            table[rows, columns] = cells
        return table  # [num_sequences, 1 + num_drafters]

    def offers(self, contexts: Sequence[Context]) -> Ints:
        """The longest draft each drafter can give each sequence, 0 if masked."""
        return self.gather([context.draft_lengths for context in contexts])

    def cut(self, offers: Ints) -> tuple[Ints, Bools]:
        """Each arm's length as far as the offers go, and which arms there are."""
        lengths = np.minimum(offers[:, self.drafters], self.lengths)
        allowed = lengths > 0
        allowed[:, 0] = True
        return lengths, allowed  # both [num_sequences, num_arms]

    def longest(self, lengths: Ints) -> Ints:
        """The longest of each drafter's arms, of lengths by arm [num_sequences, num_arms]."""
        starts = np.searchsorted(self.drafters, np.arange(len(self.names)))
        return np.asarray(np.maximum.reduceat(lengths, starts, axis=1), np.int64)

    def remap(self, old: Arms) -> Ints:
        """For each of these arms its place among `old`, -1 where it is new."""
        places = {key: i for i, key in enumerate(old.keys)}
        return np.array([places.get(key, -1) for key in self.keys], np.int64)
