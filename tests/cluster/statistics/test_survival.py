"""Tenants' survival counts: there and back, decayed, shared with equal and clipped weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.replica import Snapshot
from cluster.statistics.survival import (
    Layout,
    SurvivalCounts,
    no_counts,
    shared_counts,
    shrunk,
    survival_cells,
    survival_counts,
)
from policies.survival_table import Shrinkage, SurvivalTable

LAYOUT = Layout((None, "lookup", "model"), 4, 3)
WEIGHT = 32.0


def drafts(num_drafts: float, rate: float) -> SurvivalCounts:
    """In every context, every token accepted at `rate`."""
    at_risk = np.zeros(LAYOUT.shape)
    at_risk[:, :, 0] = num_drafts
    for depth in range(1, LAYOUT.max_length):
        at_risk[:, :, depth] = at_risk[:, :, depth - 1] * rate
    return SurvivalCounts(at_risk, at_risk * rate)


def rates(counts: SurvivalCounts) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Of the first token, by drafter and context."""
    return np.asarray(counts.num_passed[:, :, 0] / counts.num_drafts)


def test_arrays_go_into_cells_and_back() -> None:
    generator = np.random.default_rng(0)
    at_risk = generator.integers(0, 9, LAYOUT.shape)
    at_risk[0] = 0
    passed = np.minimum(at_risk, generator.integers(0, 9, LAYOUT.shape))
    cells = survival_cells(at_risk, passed, LAYOUT)
    counts = survival_counts({name: float(n) for name, n in cells.items()}, LAYOUT)
    assert np.array_equal(counts.num_at_risk, at_risk)
    assert np.array_equal(counts.num_passed, passed)


def test_cells_outside_the_layout_or_out_of_reason_do_no_harm() -> None:
    cells = {
        "s:gone:0:1:r": 5.0,
        "s:lookup:4:1:r": 5.0,
        "s:lookup:0:4:r": 5.0,
        "s:lookup:0:0:r": 5.0,
        "l:hedge:lookup:4:loss": 5.0,
        "s:lookup:1:1:r": -3.0,
        "s:lookup:2:1:r": 2.0,
        "s:lookup:2:1:p": 9.0,
    }
    counts = survival_counts(cells, LAYOUT)
    assert counts.num_at_risk.sum() == counts.num_passed.sum() == 2.0


def test_epochs_decay_by_half_lives() -> None:
    name = "s:lookup:0:1:r"
    tables = {
        Table("t", 3000): {name: 8},
        Table("t", 2000): {name: 8},
        Table("t", 1000, "past"): {name: 8 * PAST_UNIT},
        Table("u", 3000): {name: 1},
        Table("t", 9000): {name: 1},
    }
    snapshot = Snapshot(3000, tables, {"t": {name: 100}})
    assert snapshot.tenants == ["t", "u"]
    assert snapshot.counts("t", 1000.0) == {name: 8 + 4 + 2 + 1 + 100}
    assert snapshot.counts("nobody", 1000.0) == {}


def test_in_the_shared_table_each_tenant_has_the_same_weight_at_most() -> None:
    small, large, huge = drafts(10, 0.9), drafts(100, 0.5), drafts(1e6, 0.0)
    shared = shared_counts([small, large, huge], LAYOUT, max_drafts=50)
    assert np.allclose(shared.num_drafts, 10 + 50 + 50)
    assert np.allclose(rates(shared), (9 + 25) / 110)
    assert np.array_equal(shared_counts([], LAYOUT, 50).num_drafts, no_counts(LAYOUT).num_drafts)


@given(
    own=st.integers(1, 100_000),
    hostile=st.integers(0, 10**9),
    true_rate=st.floats(0.0, 1.0),
    false_rate=st.floats(0.0, 1.0),
)
def test_others_move_a_tenant_s_pass_rate_by_no_more_than_their_weight(
    own: int, hostile: int, true_rate: float, false_rate: float
) -> None:
    victim = drafts(own, true_rate)
    shared = shared_counts([victim, drafts(hostile, false_rate)], LAYOUT, 1000.0)
    moved = abs(rates(shrunk(victim, shared, WEIGHT)) - true_rate)
    assert moved.max() <= WEIGHT / (own + WEIGHT) + 1e-9


def test_a_tenant_without_counts_starts_from_the_shared_table() -> None:
    shared = shared_counts([drafts(500, 0.8), drafts(500, 0.6)], LAYOUT, 100.0)
    start = shrunk(no_counts(LAYOUT), shared, WEIGHT)
    assert np.allclose(start.num_drafts, WEIGHT)
    assert np.allclose(rates(start), 0.7)


def test_what_comes_out_fits_the_selector_s_table() -> None:
    counts = shrunk(drafts(1000, 0.8), drafts(500, 0.2), WEIGHT)
    table = SurvivalTable(len(LAYOUT.drafters), LAYOUT.num_contexts, 3, Shrinkage())
    table.merge(
        np.rint(counts.num_at_risk).astype(np.int64), np.rint(counts.num_passed).astype(np.int64)
    )
    assert table.pass_rates[1, 0, 0] == pytest.approx(0.78, abs=0.01)
    assert np.isfinite(table.expected).all()
