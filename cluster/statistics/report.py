"""Statistics as a table to read: by tenant, drafter and context. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cluster.statistics.cells import LearnerCell, SurvivalCell, cell_of

HEADER = ("tenant", "drafter", "context", "drafts", "first", "accepted")
NOBODY = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """`num_drafts` are decayed; `first` is the share whose first token was accepted.

    `num_accepted` are the tokens accepted of a draft as long as any seen: the sum over depths of
    the product-limit estimate.
    """

    tenant: str
    drafter: str
    context: int
    num_drafts: float
    first: float
    num_accepted: float

    def texts(self) -> tuple[str, ...]:
        numbers = f"{self.num_drafts:.1f}", f"{self.first:.3f}", f"{self.num_accepted:.2f}"
        return (self.tenant or NOBODY, self.drafter, str(self.context), *numbers)


def rows(tenant: str, cells: Mapping[str, float]) -> Iterator[Row]:
    """A tenant's rows in order of drafter and context."""
    found: dict[tuple[str, int], dict[tuple[str, int], float]] = {}
    for name, count in cells.items():
        cell = cell_of(name)
        if isinstance(cell, SurvivalCell):
            found.setdefault((cell.drafter, cell.context), {})[cell.count, cell.depth] = count
    for (drafter, context), counts in sorted(found.items()):
        survival, accepted, shares = 1.0, 0.0, []
        depth = 1
        while (at_risk := counts.get(("at_risk", depth), 0.0)) > 0:
            survival *= counts.get(("passed", depth), 0.0) / at_risk
            shares.append(survival)
            accepted += survival
            depth += 1
        if shares:
            num_drafts = counts["at_risk", 1]
            yield Row(tenant, drafter, context, num_drafts, shares[0], accepted)


def learners(cells: Mapping[str, float]) -> list[str]:
    """The learners that have sums in these cells."""
    found = map(cell_of, cells)
    return sorted({cell.learner for cell in found if isinstance(cell, LearnerCell)})


def aligned(lines: list[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as their widest entry, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        texts = [
            text.ljust(width) if index < 2 else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(texts).rstrip()
