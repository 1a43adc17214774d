"""A learner's sums as cells, by tenant. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.statistics.cells import LearnerCell, cell_of

Sums = Mapping[tuple[str, str, int, str], int]
"""By tenant ("" for all), drafter ("" for none), draft length and sum, as learners give them."""


def learner_cells(learner: str, sums: Sums) -> dict[str, dict[str, int]]:
    """The cells of each tenant."""
    cells: dict[str, dict[str, int]] = {}
    for (tenant, drafter, draft_length, name), count in sums.items():
        cell = LearnerCell(learner, drafter, draft_length, name)
        cells.setdefault(tenant, {})[cell.name] = count
    return cells


def learner_sums(
    learner: str, cells: Mapping[str, Mapping[str, float]]
) -> dict[tuple[str, str, int, str], int]:
    """The sums of one learner in the cells of each tenant."""
    sums = {}
    for tenant, counts in cells.items():
        for name, count in counts.items():
            cell = cell_of(name)
            if isinstance(cell, LearnerCell) and cell.learner == learner:
                sums[tenant, cell.drafter, cell.draft_length, cell.sum] = round(count)
    return sums
