"""How long drafts survive: counts by drafter, context cell and depth, and what they say.

The estimate is the product-limit one (Kaplan and Meier, 1958), so that a draft that was accepted
whole, which says "at least", counts in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.arms import Floats, Ints
from policies.rows import Rows, Scope
from policies.selector import Context

_STALE = 1.02
_NUM_DEVIATIONS = 2.0


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """How many observations the coarser estimate is worth at each level, and the last of them."""

    cell_weight: float = 32.0
    drafter_weight: float = 32.0
    prior: float = 0.6


class SurvivalTable:
    """`num_at_risk[t, d, c, i]` drafts reached depth i + 1, `num_passed[t, d, c, i]` were accepted
    there; `rows` says which t a sequence has, by `scope` its tenant's or everyone's. Whole numbers,
    unless they have aged.

    Pass rates are shrunk from context cell to drafter, and there from one depth to the depth
    before, the first to the prior.
    """

    def __init__(
        self,
        num_drafters: int,
        num_cells: int,
        max_length: int,
        shrinkage: Shrinkage,
        scope: Scope = "global",
    ) -> None:
        self._shape = (2, num_drafters, num_cells, max_length)
        self._shrinkage = shrinkage
        self._rows = Rows(scope, 2, num_drafters * num_cells * max_length)
        self._expected: Floats = np.zeros((0, num_drafters, num_cells, max_length + 1))
        self._expected_at_best = self._expected
        self._num_drafts: Floats = np.zeros(0)
        self._num_expected_from: Floats = np.zeros(0)  # drafts that `_expected` has seen

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a tenant's counts: at risk and passed, drafters, cells, depths."""
        return self._shape

    @property
    def counts(self) -> dict[str, Floats]:
        """By tenant or (for all) "": [at risk or passed, drafter, cell, depth]."""
        counts = self._counts
        return {key: counts[row] for key, row in self._rows.keys.items()}

    @property
    def num_at_risk(self) -> Floats:
        return self._counts[:, 0]

    @property
    def num_passed(self) -> Floats:
        return self._counts[:, 1]

    def rows(self, contexts: Sequence[Context]) -> Ints:
        """The t of each context."""
        rows = self._rows.of(contexts)
        if len(self._rows.sums) > len(self._expected):
            self._forget_expected()
        return rows

    def add(self, rows: Ints, drafters: Ints, cells: Ints, at_risk: Ints, passed: Ints) -> None:
        """Counts drafts that reached depth `at_risk` and of which `passed` tokens were accepted."""
        _, num_drafters, num_cells, max_length = self._shape
        counts = self._rows.sums.reshape(-1, max_length)
        flat = (2 * rows * num_drafters + drafters) * num_cells + cells
        depths = np.arange(max_length)
        np.add.at(counts, flat, depths < at_risk[:, None])
        np.add.at(counts, flat + num_drafters * num_cells, depths < passed[:, None])
        np.add.at(self._num_drafts, rows, 1)

    def take(self) -> dict[str, Floats]:
        """By tenant or for all, drafts at risk and passed, as counted since the last time."""
        return {key: added.reshape(self._shape) for key, added in self._rows.take().items()}

    def use(self, merged: Mapping[str, Floats], start: Floats) -> None:
        flat = {key: counts.reshape(2, -1) for key, counts in merged.items()}
        self._rows.use(flat, start.reshape(2, -1))
        self._forget_expected()

    def use_drafters(self, places: Ints, max_length: int) -> None:
        """`places` has the present place of each drafter from now on, -1 if it is new."""
        sums, added = self._moved(self._rows.sums, places, max_length), self._rows.added
        self._rows.replace(sums, self._moved(added, places, max_length))
        self._shape = (2, len(places), self._shape[2], max_length)
        self._forget_expected()

    def expected(self, rows: Ints) -> Floats:
        """Tokens accepted of a draft of k, at [t, d, c, k], for t in `rows`; 0 for k = 0."""
        self._bring_up_to_date(rows)
        return self._expected

    def expected_at_best(self, rows: Ints) -> Floats:
        """The same, were each pass rate two standard deviations better than it seems."""
        self._bring_up_to_date(rows)
        return self._expected_at_best

    def _bring_up_to_date(self, rows: Ints) -> None:
        """Once there are `_STALE` times the drafts, as it costs as much as a choice."""
        due = self._num_drafts[rows] > _STALE * self._num_expected_from[rows]
        for row in np.unique(rows[due]).tolist() if due.any() else ():
            rates = self.pass_rates(row)
            variances = rates * (1 - rates) / (self.num_at_risk[row] + self._shrinkage.cell_weight)
            self._expected[row] = _expected_of(rates)
            self._expected_at_best[row] = _expected_of(
                np.minimum(rates + _NUM_DEVIATIONS * np.sqrt(variances), 1.0)
            )
            self._num_expected_from[row] = self._num_drafts[row]

    def pass_rates(self, row: int) -> Floats:
        """By drafter, cell and depth, after shrinkage."""
        weight = self._shrinkage.cell_weight
        at_risk, passed = self.num_at_risk[row], self.num_passed[row]
        base = self._drafter_rates(at_risk.sum(axis=1), passed.sum(axis=1))[:, None, :]
        rates: Floats = (passed + weight * base) / (at_risk + weight)
        return rates

    def _drafter_rates(self, at_risk: Floats, passed: Floats) -> Floats:
        weight = self._shrinkage.drafter_weight
        rates: Floats = np.empty(at_risk.shape)
        before = np.full(len(rates), self._shrinkage.prior)
        for depth in range(at_risk.shape[1]):
            before = (passed[:, depth] + weight * before) / (at_risk[:, depth] + weight)
            rates[:, depth] = before
        return rates

    @property
    def _counts(self) -> Floats:
        return self._rows.sums.reshape(-1, *self._shape)

    def _moved(self, sums: Floats, places: Ints, max_length: int) -> Floats:
        old = sums.reshape(-1, *self._shape)[:, :, places, :, :max_length]
        new = np.zeros((*old.shape[:-1], max_length))
        new[..., : old.shape[-1]] = np.where(places[:, None, None] >= 0, old, 0.0)
        return new.reshape(len(sums), 2, -1)

    def _forget_expected(self) -> None:
        _, num_drafters, num_cells, max_length = self._shape
        shape = (len(self._rows.sums), num_drafters, num_cells, max_length + 1)
        if self._expected.shape != shape:
            self._expected, self._expected_at_best = np.zeros(shape), np.zeros(shape)
        self._num_drafts = self.num_at_risk[:, :, :, 0].sum(axis=(1, 2))
        self._num_expected_from = np.full(shape[0], -1.0)


def _expected_of(pass_rates: Floats) -> Floats:
    """Accepted tokens by draft length, from 0 on, of pass rates by depth."""
    expected = np.cumsum(np.cumprod(pass_rates, axis=2), axis=2)
    return np.concatenate([np.zeros((*expected.shape[:2], 1)), expected], axis=2)
