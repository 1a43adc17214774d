"""Names of cells: what an integer of a table counts.

Readers pass over names that they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MAX_TOTAL = 2**50
"""Lua's numbers are doubles: a difference of two totals must be exact in one."""

MAX_NAME_LENGTH = 200
NAME_PATTERN = r"^[A-Za-z][!-~]*$"
"""Beside the cells of a table its writers' records are kept, whose names begin otherwise."""

Count = Literal["at_risk", "passed"]
_LETTERS: dict[Count, str] = {"at_risk": "r", "passed": "p"}
_COUNTS = {letter: count for count, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class SurvivalCell:
    """Drafts of a drafter in a context that reached a depth (from 1), or were accepted there."""

    drafter: str
    context: int
    depth: int
    count: Count

    @property
    def name(self) -> str:
        return _joined("s", self.drafter, self.context, self.depth, _LETTERS[self.count])


@dataclass(frozen=True, slots=True)
class LearnerCell:
    """A learner's sum for an arm; `learner` tells selectors apart, the drafter may be empty."""

    learner: str
    drafter: str
    draft_length: int
    sum: str

    @property
    def name(self) -> str:
        return _joined("l", self.learner, self.drafter, self.draft_length, self.sum)


def cell_of(name: str) -> SurvivalCell | LearnerCell | None:
    """The cell of a name, None if this version knows no such cell."""
    parts = name.split(":")
    if parts[0] == "s" and len(parts) == 5 and parts[4] in _COUNTS:
        if parts[2].isdecimal() and parts[3].isdecimal():
            return SurvivalCell(parts[1], int(parts[2]), int(parts[3]), _COUNTS[parts[4]])
    elif parts[0] == "l" and len(parts) == 5 and parts[3].isdecimal():
        return LearnerCell(parts[1], parts[2], int(parts[3]), parts[4])
    return None


def check_counts(tenant: str, counts: Mapping[str, int]) -> None:
    """Raises ValueError on what no store could hold."""
    if len(tenant) > MAX_NAME_LENGTH or not tenant.isprintable():
        raise ValueError(f"{tenant!r} is no tenant; expected at most {MAX_NAME_LENGTH} characters")
    for name, count in counts.items():
        if len(name) > MAX_NAME_LENGTH or not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(f"{name!r} is no name of a cell")
        if abs(count) > MAX_TOTAL:
            raise ValueError(f"{name}: {count} is out of range; expected within +-{MAX_TOTAL}")


def _joined(*parts: str | int) -> str:
    for part in parts:
        if ":" in str(part):
            raise ValueError(f"{part!r} holds a colon, which separates the parts of a cell's name")
    return ":".join(map(str, parts))
