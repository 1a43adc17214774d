"""Survival counts as arrays, and what tenants tell one another. Pure.

A tenant's own counts come first. Behind them stands a table that all share, in which every tenant
has the same weight at most, so that none can steer another's choices far: with n own drafts in a
context, the shared table moves a pass rate by no more than weight / (n + weight).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.statistics.cells import Count, SurvivalCell, cell_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Layout:
    """The order of drafters, the number of contexts and of depths; None is plain decoding."""

    drafters: tuple[str | None, ...]
    num_contexts: int
    max_length: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.drafters), self.num_contexts, self.max_length


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalCounts:
    """At [d, c, i]: drafts of drafter d in context c that reached depth i + 1, and passed it."""

    num_at_risk: Floats
    num_passed: Floats

    @property
    def num_drafts(self) -> Floats:
        """Drafts by drafter and context."""
        return self.num_at_risk[:, :, 0]

    def scaled(self, factors: Floats) -> SurvivalCounts:
        """Times a factor by drafter and context."""
        by_depth = factors[:, :, None]
        return SurvivalCounts(self.num_at_risk * by_depth, self.num_passed * by_depth)

    def plus(self, other: SurvivalCounts) -> SurvivalCounts:
        return SurvivalCounts(
            self.num_at_risk + other.num_at_risk, self.num_passed + other.num_passed
        )


def no_counts(layout: Layout) -> SurvivalCounts:
    return SurvivalCounts(np.zeros(layout.shape), np.zeros(layout.shape))


def survival_counts(cells: Mapping[str, float], layout: Layout) -> SurvivalCounts:
    """The arrays of one tenant's cells; cells outside the layout are passed over."""
    counts = no_counts(layout)
    arrays: dict[Count, Floats] = {"at_risk": counts.num_at_risk, "passed": counts.num_passed}
    places = {name: place for place, name in enumerate(layout.drafters)}
    for name, count in cells.items():
        cell = cell_of(name)
        if not isinstance(cell, SurvivalCell) or cell.drafter not in places:
            continue
        if cell.context < layout.num_contexts and 1 <= cell.depth <= layout.max_length:
            arrays[cell.count][places[cell.drafter], cell.context, cell.depth - 1] = max(0.0, count)
    np.minimum(counts.num_passed, counts.num_at_risk, out=counts.num_passed)
    return counts


def survival_cells(
    num_at_risk: NDArray[np.int64], num_passed: NDArray[np.int64], layout: Layout
) -> dict[str, int]:
    """The cells of integer arrays [drafter, context, depth], zeros left out."""
    cells = {}
    arrays: tuple[tuple[Count, NDArray[np.int64]], ...] = (
        ("at_risk", num_at_risk),
        ("passed", num_passed),
    )
    for count, array in arrays:
        for place, context, index in np.argwhere(array).tolist():
            drafter = layout.drafters[place]
            if drafter is not None:
                name = SurvivalCell(drafter, context, index + 1, count).name
                cells[name] = int(array[place, context, index])
    return cells


def shared_counts(
    tenants: Sequence[SurvivalCounts], layout: Layout, max_drafts: float
) -> SurvivalCounts:
    """The sum over tenants, of each at most `max_drafts` drafts by drafter and context."""
    total = no_counts(layout)
    for counts in tenants:
        total = total.plus(_clipped(counts, max_drafts))
    return total


def shrunk(own: SurvivalCounts, shared: SurvivalCounts, weight: float) -> SurvivalCounts:
    """A tenant's counts, and the shared ones as if they were at most `weight` drafts more."""
    return own.plus(_clipped(shared, weight))


def _clipped(counts: SurvivalCounts, max_drafts: float) -> SurvivalCounts:
    return counts.scaled(np.minimum(1.0, max_drafts / np.maximum(counts.num_drafts, 1e-9)))
