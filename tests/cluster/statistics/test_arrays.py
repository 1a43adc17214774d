"""Arrays of counts as cells, there and back, and what snapshots of cells come to as arrays."""

from __future__ import annotations

import numpy as np

from cluster.statistics.arrays import ArrayView, CellLayout, learner_layout, survival_layout
from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.replica import Snapshot

SURVIVAL = survival_layout((None, "lookup", "model"), 4, 3)
LEARNER = learner_layout("hedge-1", ("chosen", "observed", "loss"), [("", 0), ("lookup", 4)])


def test_counts_go_into_cells_and_back() -> None:
    counts = np.random.default_rng(0).integers(0, 3, SURVIVAL.shape).astype(np.float64)
    cells = SURVIVAL.cells(counts)
    assert len(cells) == np.count_nonzero(counts)
    assert cells["s:lookup:3:1:p"] == counts[1, 1, 3, 0]
    assert np.array_equal(SURVIVAL.array(cells), counts)


def test_sums_go_into_cells_in_millionths() -> None:
    sums = np.array([[1.0, 2.0], [1.0, 2.0], [0.25, -1e-6]])
    cells = LEARNER.cells(sums)
    assert cells["l:hedge-1::0:loss"] == 250_000
    assert cells["l:hedge-1:lookup:4:loss"] == -1
    assert np.allclose(LEARNER.array(cells), sums)


def test_cells_of_others_are_passed_over() -> None:
    cells = {"s:gone:0:1:r": 5, "s:lookup:4:1:r": 5, "s:lookup:0:4:r": 5, "s:lookup:0:0:r": 5}
    for layout in (SURVIVAL, LEARNER):
        assert not layout.array(cells | {"l:hedge-2::0:loss": 5, "nonsense": 5}).any()


def test_epochs_decay_by_half_lives() -> None:
    name = "s:lookup:0:1:r"
    tables = {
        Table("t", 3000): {name: 8},
        Table("t", 2000): {name: 8},
        Table("t", 1000, "past"): {name: 8 * PAST_UNIT},
        Table("u", 3000): {name: 1},
        Table("t", 9000): {name: 1},
    }
    snapshot = Snapshot(3000, tables, {"t": {name: 100}, "v": {name: 2}})
    arrays = ArrayView(SURVIVAL, 1000.0).arrays(snapshot)
    counts = {tenant: array[0, 1, 0, 0] for tenant, array in arrays.items()}
    assert counts == {"t": 8 + 4 + 2 + 1 + 100, "u": 1, "v": 2}
    assert counts["t"] == snapshot.counts("t", 1000.0)[name]


def test_only_tables_that_changed_are_read_anew() -> None:
    read: list[int] = []

    class Layout(CellLayout):
        def array(self, cells: object) -> object:  # type: ignore[override]
            read.append(len(cells))  # type: ignore[arg-type]
            return super().array(cells)  # type: ignore[arg-type]

    view = ArrayView(Layout((2,), ["x", "y"]), 1000.0)
    first, second = {"x": 1}, {"x": 1, "y": 1}
    for cells in (first, first, second):
        arrays = view.arrays(Snapshot(0, {Table("t", 0): first, Table("u", 0): cells}))
    assert read == [1, 1, 2]
    assert arrays["u"].tolist() == [1, 1]
