"""How long drafts survive: integer counts by drafter, context cell and depth, and what they say.

The estimate is the product-limit one (Kaplan and Meier, 1958), so that a draft that was accepted
whole, which says "at least", counts in full.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.arms import Floats, Ints

_STALE = 1.02
_NUM_DEVIATIONS = 2.0


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """How many observations the coarser estimate is worth at each level, and the last of them."""

    cell_weight: float = 32.0
    drafter_weight: float = 32.0
    prior: float = 0.6


class SurvivalTable:
    """`num_at_risk[d, c, i]` drafts reached depth i + 1, `num_passed[d, c, i]` were accepted there.

    Pass rates are shrunk from context cell to drafter, and there from one depth to the depth
    before, the first to the prior.
    """

    def __init__(self, num_drafters: int, num_cells: int, max_length: int, shrinkage: Shrinkage):
        self._shape = (num_drafters, num_cells, max_length)
        self._shrinkage = shrinkage
        self.num_at_risk: NDArray[np.int64] = np.zeros(self._shape, np.int64)
        self.num_passed: NDArray[np.int64] = np.zeros(self._shape, np.int64)
        self._expected = self._expected_at_best = np.zeros(0)
        self._num_drafts = 0
        self._num_expected_from = -1  # drafts that `_expected` has seen

    def add(self, drafters: Ints, cells: Ints, at_risk: Ints, passed: Ints) -> None:
        """Counts drafts that reached depth `at_risk` and of which `passed` tokens were accepted."""
        _, num_cells, max_length = self._shape
        flat = drafters * num_cells + cells
        depths = np.arange(max_length)
        np.add.at(self.num_at_risk.reshape(-1, max_length), flat, depths < at_risk[:, None])
        np.add.at(self.num_passed.reshape(-1, max_length), flat, depths < passed[:, None])
        self._num_drafts += len(drafters)

    def merge(self, num_at_risk: Ints, num_passed: Ints) -> None:
        """Adds counts that others have gathered."""
        self.num_at_risk += num_at_risk
        self.num_passed += num_passed
        self._num_expected_from = -1

    @property
    def expected(self) -> Floats:
        """Tokens accepted of a draft of k, at [d, c, k]; 0 for k = 0."""
        self._bring_up_to_date()
        return self._expected

    @property
    def expected_at_best(self) -> Floats:
        """The same, were each pass rate two standard deviations better than it seems."""
        self._bring_up_to_date()
        return self._expected_at_best

    def _bring_up_to_date(self) -> None:
        """Once there are `_STALE` times the drafts, as it costs as much as a choice."""
        if self._num_expected_from >= 0 and self._num_drafts <= _STALE * self._num_expected_from:
            return
        rates = self.pass_rates
        variances = rates * (1 - rates) / (self.num_at_risk + self._shrinkage.cell_weight)
        self._expected = _expected_of(rates)
        self._expected_at_best = _expected_of(
            np.minimum(rates + _NUM_DEVIATIONS * np.sqrt(variances), 1.0)
        )
        self._num_expected_from = self._num_drafts

    @property
    def pass_rates(self) -> Floats:
        """By drafter, cell and depth, after shrinkage."""
        weight = self._shrinkage.cell_weight
        base = self._drafter_rates()[:, None, :]
        rates: Floats = (self.num_passed + weight * base) / (self.num_at_risk + weight)
        return rates

    def _drafter_rates(self) -> Floats:
        at_risk, passed = self.num_at_risk.sum(axis=1), self.num_passed.sum(axis=1)
        weight = self._shrinkage.drafter_weight
        rates = np.empty(at_risk.shape)
        before = np.full(len(rates), self._shrinkage.prior)
        for depth in range(rates.shape[1]):
            before = (passed[:, depth] + weight * before) / (at_risk[:, depth] + weight)
            rates[:, depth] = before
        return rates


def _expected_of(pass_rates: Floats) -> Floats:
    """Accepted tokens by draft length, from 0 on, of pass rates by depth."""
    expected = np.cumsum(np.cumprod(pass_rates, axis=2), axis=2)
    return np.concatenate([np.zeros((*expected.shape[:2], 1)), expected], axis=2)
