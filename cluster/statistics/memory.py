"""A store in this process: for one process without Redis, and the reference for the scripts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cluster.statistics.keys import Table
from cluster.statistics.store import (
    Batch,
    Fold,
    Lifetimes,
    Reading,
    Receipt,
    Status,
    TableState,
    WriterRecord,
)


@dataclass(slots=True)
class StoredTable:
    """Merged cells, and each writer's record and totals; a folded writer has no totals."""

    cells: dict[str, int] = field(default_factory=dict)
    writers: dict[str, WriterRecord] = field(default_factory=dict)
    totals: dict[str, dict[str, int]] = field(default_factory=dict)
    expires_us: int = 0


@dataclass(slots=True)
class Contents:
    tables: dict[Table, StoredTable] = field(default_factory=dict)
    versions: dict[Table, int] = field(default_factory=dict)


class MemoryStore:
    """`now_us` is the store's clock. Not for use from several threads at once."""

    def __init__(self, now_us: Callable[[], int], lifetimes: Lifetimes | None = None) -> None:
        self._now_us = now_us
        self._lifetimes = lifetimes or Lifetimes()
        self.contents = Contents()

    def merge(self, batch: Batch) -> Receipt:
        now_us, table = self._now(), batch.table
        before = self.contents.versions.get(table, 0)
        stored_table = self.contents.tables.get(table, StoredTable())
        record = stored_table.writers.get(batch.writer, WriterRecord(0))

        def receipt(status: Status, after: int = before) -> Receipt:
            return Receipt(status, record.sequence, before, after, now_us)

        lifetimes = self._lifetimes
        if (
            record.is_folded
            or lifetimes.is_closed(table.epoch, now_us)
            or lifetimes.is_ahead(table.epoch, now_us)
        ):
            return receipt(Status.FOLDED)
        if batch.sequence <= record.sequence:
            return receipt(Status.DUPLICATE)
        if batch.base != record.sequence:
            return receipt(Status.BEHIND)
        self.contents.tables[table] = stored_table
        totals = stored_table.totals.setdefault(batch.writer, {})
        for cell, total in batch.totals.items():
            change = total - totals.get(cell, 0)
            if change:
                stored_table.cells[cell] = stored_table.cells.get(cell, 0) + change
        totals.update(batch.totals)
        stored_table.writers[batch.writer] = WriterRecord(batch.sequence)
        return receipt(Status.APPLIED, self._touch(table, now_us))

    def read(self, known: Mapping[Table, int], max_tables: int) -> Reading:
        now_us, versions = self._now(), dict(self.contents.versions)
        changed = [table for table in versions if known.get(table) != versions[table]]
        states = {table: self._state(table) for table in changed[:max_tables]}
        return Reading(now_us, versions, states)

    def fold(self, fold: Fold) -> None:
        now_us = self._now()
        source = self.contents.tables.get(fold.source, StoredTable())
        is_changed = False
        for writer, sequence in fold.writers.items():
            record = source.writers.get(writer)
            if record is not None and record.sequence == sequence:
                source.totals.pop(writer, None)
                source.writers[writer] = replace(record, is_folded=True)
                is_changed = is_changed or not record.is_folded
        is_closed = self._lifetimes.is_closed(fold.source.epoch, now_us)
        if is_closed and self._move(fold, source, now_us):
            is_changed = True
        if fold.is_last and is_closed and not source.cells:
            self.contents.versions.pop(fold.source, None)
            echo_s = self._lifetimes.echo_epochs * self._lifetimes.epoch_s
            source.expires_us = now_us + echo_s * 1_000_000
        elif is_changed:
            self._touch(fold.source, now_us)

    def clear(self, table: Table, writers: Mapping[str, WriterRecord]) -> None:
        now_us = self._now()
        old = self.contents.tables.pop(table, StoredTable())
        if not old.writers:
            self.contents.versions.pop(table, None)
            return
        folded = {name: replace(record, is_folded=True) for name, record in old.writers.items()}
        self.contents.tables[table] = StoredTable(writers=folded)
        self._touch(table, now_us)

    def _move(self, fold: Fold, source: StoredTable, now_us: int) -> int:
        num_moved = 0
        for cell in fold.cells:
            if fold.target is None or cell not in source.cells:
                continue
            target = self.contents.tables.setdefault(fold.target, StoredTable())
            worth = math.floor(source.cells.pop(cell) * fold.factor)
            if worth:
                target.cells[cell] = target.cells.get(cell, 0) + worth
            num_moved += 1
        if num_moved and fold.target is not None:
            self._touch(fold.target, now_us)
        return num_moved

    def _state(self, table: Table) -> TableState:
        stored = self.contents.tables.get(table, StoredTable())
        return TableState(dict(stored.cells), dict(stored.writers))

    def _touch(self, table: Table, now_us: int) -> int:
        version = max(now_us, self.contents.versions.get(table, 0) + 1)
        self.contents.versions[table] = version
        if table in self.contents.tables:
            lasts_us = self._lifetimes.retention_s * 1_000_000
            self.contents.tables[table].expires_us = now_us + lasts_us
        return version

    def _now(self) -> int:
        now_us, contents = self._now_us(), self.contents
        for table in [t for t, stored in contents.tables.items() if stored.expires_us <= now_us]:
            del contents.tables[table]
            contents.versions.pop(table, None)
        return now_us
