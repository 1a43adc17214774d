"""The contract of every statistics store: merge, read, fold, clear.

A *writer* sends *totals*, absolute and numbered by *sequence*; the store adds what they differ by
from those it has of that writer. Each batch names the sequence number that it builds on, its
*base*, and is applied on that alone. So the number that is stored tells exactly what the store has
of the writer: a batch that is late, doubled or out of order counts once or not at all, and a store
that was rolled back or flushed is found out by the next batch.

A *folded* writer's totals are let go of: what the store had of it stays in the table, and nothing
more is taken from it there.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cluster.statistics.keys import Table

MAX_CELLS = 500
"""In one call, so that no script holds the server for long."""


class StoreError(Exception):
    """The store did not answer, or not as it should; whether it did its work is unknown."""


class Status(enum.Enum):
    """`duplicate`: this batch, or a later one, was applied before; `behind`: the store is not at
    the batch's base, and did nothing; `folded`: it takes nothing more from this writer in this
    table."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    BEHIND = "behind"
    FOLDED = "folded"


@dataclass(frozen=True, slots=True)
class Batch:
    """What a writer sends: some of its totals in one table, not empty, at most MAX_CELLS.

    A sequence number is higher than any before, and never used for two batches.
    """

    table: Table
    writer: str
    base: int
    sequence: int
    totals: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Receipt:
    """`stored` is the writer's sequence number in the store before this call, 0 if it has none.

    The versions are the table's before and after; 0 is a table that was not there.
    """

    status: Status
    stored: int
    version_before: int
    version_after: int
    now_us: int


@dataclass(frozen=True, slots=True)
class WriterRecord:
    """The last sequence number that was applied."""

    sequence: int
    is_folded: bool = False


@dataclass(frozen=True, slots=True)
class TableState:
    """The merged cells, and what is known of those who wrote them."""

    cells: Mapping[str, int] = field(default_factory=dict)
    writers: Mapping[str, WriterRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """The version of every table there is, and the states that were asked for and have changed.

    Versions are never used twice, also across a roll-back.
    """

    now_us: int
    versions: Mapping[Table, int]
    tables: Mapping[Table, TableState]


@dataclass(frozen=True, slots=True)
class Fold:
    """Lets go of writers' totals, and moves cells of a closed table into a past one.

    Each writer comes with the sequence number at which it was seen and is left alone if it has
    moved on. `factor` is what a count is worth in the target. With `is_last`, a source without
    cells leaves the index.
    """

    source: Table
    target: Table | None = None
    factor: float = 0.0
    cells: tuple[str, ...] = ()
    writers: Mapping[str, int] = field(default_factory=dict)
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """`retention_s` after its last change a table is forgotten; of a folded live table nothing but
    its writers' last sequence numbers is kept, and that for `echo_epochs`."""

    epoch_s: int = 6 * 3600
    retention_s: int = 30 * 86400
    echo_epochs: int = 4

    def epoch(self, now_us: int) -> int:
        now_s = now_us // 1_000_000
        return now_s - now_s % self.epoch_s

    def is_closed(self, epoch: int, now_us: int) -> bool:
        """A table takes counts in its own epoch and the next."""
        return epoch + 2 * self.epoch_s <= now_us // 1_000_000

    def is_ahead(self, epoch: int, now_us: int) -> bool:
        return epoch > now_us // 1_000_000 + self.epoch_s


class StatisticsStore(Protocol):
    """Every method raises StoreError, and only that, if the store cannot be reached."""

    def merge(self, batch: Batch) -> Receipt:
        """Applies a writer's totals if the store is at their base."""
        ...

    def read(self, known: Mapping[Table, int], max_tables: int) -> Reading:
        """The states of at most `max_tables` tables whose version is not the known one."""
        ...

    def fold(self, fold: Fold) -> None:
        """Does so much of it as still holds; again, it does nothing."""
        ...

    def clear(self, table: Table, writers: Mapping[str, WriterRecord]) -> None:
        """Empties a table and folds all its writers, the known ones' totals let go of."""
        ...
