"""A request's own record: seen against expected, shrunk to one, fading, gone with the request."""

from __future__ import annotations

import numpy as np
import pytest

from policies.correction import Correction
from policies.selector import Context


def rows_of(correction: Correction, *names: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return correction.rows([Context(name, "t", {}, {}) for name in names])


def observe(correction: Correction, row: int, seen: int, expected: float, times: int = 1) -> None:
    here, drafter = np.full(times, row), np.full(times, 1)
    correction.observe(here, drafter, np.full(times, seen), np.full(times, expected))


def test_a_new_request_does_as_the_table_says() -> None:
    correction = Correction(3, weight=8.0, kept=0.97)
    assert (correction.factors(rows_of(correction, "a", "b")) == 1).all()


def test_the_factor_is_seen_to_expected_shrunk_by_the_weight() -> None:
    correction = Correction(3, weight=8.0, kept=1.0)
    (row,) = rows_of(correction, "a").tolist()
    observe(correction, row, seen=3, expected=1.0, times=4)
    assert correction.factors(np.array([row]))[0] == pytest.approx([1, (12 + 8) / (4 + 8), 1])


def test_as_much_as_expected_leaves_the_factor_at_one() -> None:
    correction = Correction(2, weight=8.0, kept=0.97)
    (row,) = rows_of(correction, "a").tolist()
    observe(correction, row, seen=2, expected=2.0, times=500)
    assert correction.factors(np.array([row]))[0] == pytest.approx([1, 1])


def test_old_evidence_fades_with_every_outcome() -> None:
    correction = Correction(2, weight=8.0, kept=0.9)
    (row,) = rows_of(correction, "a").tolist()
    for seen in [0] * 100 + [2] * 100:
        observe(correction, row, seen, expected=1.0)
    num_kept = 1 / (1 - 0.9)  # the sum of a geometric series
    factor = (2 * num_kept + 8) / (num_kept + 8)
    assert correction.factors(np.array([row]))[0, 1] == pytest.approx(factor, rel=1e-3)


def test_requests_and_drafters_do_not_share_evidence_and_a_freed_row_starts_anew() -> None:
    correction = Correction(3, weight=8.0, kept=0.97)
    first, second = rows_of(correction, "a", "b").tolist()
    observe(correction, first, seen=0, expected=2.0, times=9)
    factors = correction.factors(np.array([first, second]))
    assert factors[0, 1] < 1
    assert (np.delete(factors.ravel(), 1) == 1).all()
    assert correction.free("a") == first
    assert correction.free("a") is None
    (again,) = rows_of(correction, "c").tolist()
    assert again == first
    assert (correction.factors(np.array([again])) == 1).all()


@pytest.mark.parametrize(("weight", "kept"), [(0.0, 0.9), (-1.0, 0.9), (8.0, 0.0), (8.0, 1.1)])
def test_senseless_settings_are_refused(weight: float, kept: float) -> None:
    with pytest.raises(ValueError, match="weight, kept"):
        Correction(2, weight, kept)
