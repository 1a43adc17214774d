"""What tenants tell one another of survival: with equal, clipped weight, behind their own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cluster.statistics.arrays import Floats
from cluster.statistics.survival import Weights, weighed

SHAPE = (2, 3, 4, 3)  # at risk and passed, drafters, contexts, depths
WEIGHTS = Weights(tenant=50.0, shared=32.0)


def drafts(num_drafts: float, rate: float) -> Floats:
    """In every context, every token accepted at `rate`."""
    at_risk = np.zeros(SHAPE[1:]) + num_drafts * rate ** np.arange(SHAPE[3])
    return np.stack([at_risk, at_risk * rate])


def rates(counts: Floats) -> Floats:
    """Of the first token, by drafter and context."""
    return np.asarray(counts[1, :, :, 0] / counts[0, :, :, 0])


def test_each_tenant_has_the_same_weight_at_most() -> None:
    tenants = {"small": drafts(10, 0.9), "large": drafts(100, 0.5), "huge": drafts(1e6, 0.0)}
    _, start = weighed(tenants, SHAPE, Weights(tenant=50.0, shared=1e9))
    assert np.allclose(start[0, :, :, 0], 10 + 50 + 50)
    assert np.allclose(rates(start), (9 + 25) / 110)


def test_nobody_s_own_counts_stand_behind_themselves() -> None:
    merged, _ = weighed({"alone": drafts(7, 0.5)}, SHAPE, WEIGHTS)
    assert np.allclose(merged["alone"], drafts(7, 0.5))


@given(
    own=st.integers(1, 100_000),
    hostile=st.integers(0, 10**9),
    true_rate=st.floats(0.0, 1.0),
    false_rate=st.floats(0.0, 1.0),
)
def test_others_move_a_tenant_s_pass_rate_by_no_more_than_their_weight(
    own: int, hostile: int, true_rate: float, false_rate: float
) -> None:
    tenants = {"victim": drafts(own, true_rate), "hostile": drafts(hostile, false_rate)}
    merged, _ = weighed(tenants, SHAPE, Weights(tenant=1e9, shared=32.0))
    moved = abs(rates(merged["victim"]) - true_rate)
    assert moved.max() <= 32.0 / (own + 32.0) + 1e-9


def test_a_tenant_without_counts_starts_from_the_others() -> None:
    _, start = weighed({"a": drafts(500, 0.8), "b": drafts(500, 0.6)}, SHAPE, WEIGHTS)
    assert np.allclose(start[0, :, :, 0], WEIGHTS.shared)
    assert np.allclose(rates(start), 0.7)
    assert weighed({}, SHAPE, WEIGHTS)[1].sum() == 0


def test_impossible_counts_are_made_possible() -> None:
    broken = np.zeros(SHAPE)
    broken[0, 0, 0] = (-3, 5, 5)  # at no time reached, then reached
    broken[:, 1, 1] = np.array([[2, 1, 1], [9, 9, 9]])  # passed by more than reached
    merged, start = weighed({"t": broken}, SHAPE, WEIGHTS)
    assert not merged["t"][:, 0, 0].any()
    assert (merged["t"][:, 1, 1] == [[2, 1, 1], [2, 1, 1]]).all()
    assert (start[1] <= start[0]).all()
