"""Arrays of counts as cells, and back: what learners hold and what a store holds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.statistics.cells import Count, LearnerCell, SurvivalCell
from cluster.statistics.keys import Table
from cluster.statistics.replica import Snapshot, worth

Floats = NDArray[np.float64]

COUNTS: tuple[Count, ...] = ("at_risk", "passed")
LEARNER_UNIT = 1e-6


class CellLayout:
    """Which entry of an array is which cell. A cell counts entries' multiples of `unit`."""

    def __init__(self, shape: tuple[int, ...], names: Iterable[str], unit: float = 1.0) -> None:
        self.shape = shape
        self._names = list(names)
        self._places = {name: place for place, name in enumerate(self._names)}
        self._unit = unit

    def cells(self, array: Floats) -> dict[str, int]:
        """Zeros are left out."""
        counts = np.rint(array.reshape(-1) / self._unit).astype(np.int64)
        places = np.flatnonzero(counts)
        names = (self._names[place] for place in places.tolist())
        return dict(zip(names, counts[places].tolist(), strict=True))

    def array(self, cells: Mapping[str, int]) -> Floats:
        """Cells that the layout has not are passed over."""
        array = np.zeros(len(self._names))
        for name, count in cells.items():
            place = self._places.get(name)
            if place is not None:
                array[place] = count * self._unit
        return array.reshape(self.shape)


def survival_layout(
    drafters: Sequence[str | None], num_contexts: int, max_length: int
) -> CellLayout:
    """Of arrays [at risk or passed, drafter, context, depth]; None is plain decoding."""
    names = (
        SurvivalCell(drafter or "", context, index + 1, count).name
        for count in COUNTS
        for drafter in drafters
        for context in range(num_contexts)
        for index in range(max_length)
    )
    return CellLayout((len(COUNTS), len(drafters), num_contexts, max_length), names)


def learner_layout(
    learner: str, sums: Sequence[str], arms: Sequence[tuple[str, int]]
) -> CellLayout:
    """Of arrays [sum, arm]; an arm is (drafter, "" for none, draft length)."""
    names = (LearnerCell(learner, *arm, name).name for name in sums for arm in arms)
    return CellLayout((len(sums), len(arms)), names, LEARNER_UNIT)


class ArrayView:
    """Snapshots as arrays by tenant. Reads anew only the tables that have changed."""

    def __init__(self, layout: CellLayout, half_life_s: float) -> None:
        self.layout = layout
        self._half_life_s = half_life_s
        self._known: dict[Table, tuple[Mapping[str, int], Floats]] = {}

    def arrays(self, snapshot: Snapshot) -> dict[str, Floats]:
        """Every tenant's, each epoch decayed by its age."""
        known, self._known = self._known, {}
        sums = {t: self.layout.array(cells) for t, cells in snapshot.unacknowledged.items()}
        for table, cells in snapshot.tables.items():
            seen, array = known.get(table, (None, None))
            if array is None or seen is not cells:
                array = self.layout.array(cells)
            self._known[table] = cells, array
            weight = worth(table, snapshot.epoch, self._half_life_s)
            sums[table.tenant] = sums.get(table.tenant, 0.0) + weight * array
        return sums
