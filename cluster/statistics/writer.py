"""What this process has counted: what to send next, and what an answer means. Pure.

Counts wait unbound until they are first sent, and then belong to the epoch of that moment. One
batch is under way at a time; until it is answered it is sent again as it is, number and all, so
that it is known in the end whether the store has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cluster.statistics.cells import MAX_TOTAL, check_counts
from cluster.statistics.keys import Table
from cluster.statistics.store import MAX_CELLS, Batch, Lifetimes, Reading, Receipt, Status


@dataclass(slots=True)
class Segment:
    """Totals that one writer id has in one table, as the store acknowledged them.

    `whole` are sequence numbers at which the store had exactly these, `sequence` the one that it
    was last known to be at, `issued` the last one used. `again` are cells to send once more, since
    the store may have lost them. A closed segment takes no new counts: the store has folded it, and
    they go under the next writer id.
    """

    table: Table
    writer: str
    totals: dict[str, int] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)
    sequence: int = 0
    issued: int = 0
    again: dict[str, None] = field(default_factory=dict)
    is_open: bool = True


@dataclass(slots=True)
class Tally:
    """`num_repairs` counts segments that the store had lost something of, `num_lost` cells that
    cannot be repaired, `num_refused` those that found no room."""

    num_sent: int = 0
    num_repairs: int = 0
    num_lost: int = 0
    num_refused: int = 0


class Writer:
    """`new_id` gives an id that nobody has used. Holds at most `max_cells` cells."""

    def __init__(
        self,
        new_id: Callable[[], str],
        lifetimes: Lifetimes | None = None,
        max_cells: int = 1_000_000,
    ) -> None:
        self._new_id = new_id
        self._lifetimes = lifetimes or Lifetimes()
        self._max_cells = max_cells
        self._pending: dict[str, dict[str, int]] = {}
        self._segments: list[Segment] = []
        self._in_flight: tuple[Segment, Batch] | None = None
        self.tally = Tally()

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    @property
    def in_flight(self) -> Batch | None:
        """Sent, but not answered as far as we know."""
        return self._in_flight[1] if self._in_flight else None

    @property
    def num_cells(self) -> int:
        waiting = sum(map(len, self._pending.values()))
        return waiting + sum(len(segment.totals) for segment in self._segments)

    @property
    def unacknowledged(self) -> dict[str, dict[str, int]]:
        """By tenant, what the store is not known to have."""
        found = {tenant: dict(cells) for tenant, cells in self._pending.items() if cells}
        if self._in_flight is not None:
            segment, batch = self._in_flight
            _add(found.setdefault(batch.table.tenant, {}), self._changes(segment, batch))
        return found

    def add(self, tenant: str, counts: Mapping[str, int]) -> None:
        """Counts more; ValueError if none of it can be. New cells are refused without room."""
        check_counts(tenant, counts)
        room = self._max_cells - self.num_cells
        cells = self._pending.setdefault(tenant, {})
        for name, count in counts.items():
            total = cells.get(name, 0) + count
            room -= name not in cells
            if (name not in cells and room < 0) or abs(total) > MAX_TOTAL:
                self.tally.num_refused += 1
            else:
                cells[name] = total
            if not total:
                cells.pop(name, None)

    def next_batch(self, now_us: int) -> Batch | None:
        """What to send now, None if the store has everything."""
        if self._in_flight is None:
            self._drop_closed(now_us)
            self._in_flight = self._repeat() or self._send_pending(self._lifetimes.epoch(now_us))
        return self.in_flight

    def settle(self, receipt: Receipt) -> Mapping[str, int] | None:
        """Takes the answer to the batch that `next_batch` gave.

        Returns what the store has more now, None where that is not certain.
        """
        assert self._in_flight is not None
        (segment, batch), self._in_flight = self._in_flight, None
        changes, was_sound = self._changes(segment, batch), not segment.again
        if receipt.status is Status.FOLDED:
            self._close(segment, batch, receipt)
            return None
        if receipt.status is Status.BEHIND or receipt.stored > batch.sequence:
            self._put_back(segment, changes)
            segment.sequence = receipt.stored
            self._repair(segment)
            return None
        _acknowledge(segment, batch)
        self.tally.num_sent += len(batch.totals)
        return changes if was_sound and receipt.status is Status.APPLIED else None

    def check(self, reading: Reading) -> None:
        """Repairs what the store has not as it acknowledged it, also where nothing is sent."""
        assert self._in_flight is None
        for segment in self._segments:
            is_due = segment.sequence and not segment.again
            if is_due and _is_lost(segment, reading, self._lifetimes):
                self._repair(segment)

    def drop(self, epoch: int) -> list[Segment]:
        """Gives up the totals of an epoch, of which the store takes nothing more."""
        dropped = [segment for segment in self._segments if segment.table.epoch == epoch]
        self._segments = [each for each in self._segments if each.table.epoch != epoch]
        return dropped

    def is_idle(self) -> bool:
        waits = any(self._pending.values()) or any(segment.again for segment in self._segments)
        return self._in_flight is None and not waits

    def _repair(self, segment: Segment) -> None:
        """All of it is sent again, which changes nothing that counts."""
        self.tally.num_repairs += 1
        segment.again = dict.fromkeys(segment.totals)

    def _repeat(self) -> tuple[Segment, Batch] | None:
        for segment in self._segments:
            if segment.again:
                names = _first(segment.again)
                return segment, _batch(segment, {name: segment.totals[name] for name in names})
        return None

    def _send_pending(self, epoch: int) -> tuple[Segment, Batch] | None:
        self._pending = {tenant: cells for tenant, cells in self._pending.items() if cells}
        for tenant in self._pending:
            cells = self._pending.pop(tenant)  # to the end, so that all have their turn
            segment = self._open_segment(Table(tenant, epoch))
            names = _first(cells)
            totals = {name: segment.totals.get(name, 0) + cells[name] for name in names}
            if max(map(abs, totals.values())) > MAX_TOTAL:
                segment.is_open = False
                segment = self._open_segment(Table(tenant, epoch))
                totals = {name: cells[name] for name in names}
            for name in names:
                del cells[name]
            self._pending[tenant] = cells
            return segment, _batch(segment, totals)
        return None

    def _open_segment(self, table: Table) -> Segment:
        for segment in self._segments:
            if segment.table == table and segment.is_open:
                return segment
        self._segments.append(Segment(table, self._new_id()))
        return self._segments[-1]

    def _close(self, segment: Segment, batch: Batch, receipt: Receipt) -> None:
        """Nothing more is taken from this segment; what it did not take is counted anew."""
        segment.is_open = False
        changes = self._changes(segment, batch)
        if receipt.stored == batch.sequence:
            _acknowledge(segment, batch)
            changes = {}
        if receipt.stored not in segment.whole and segment.totals:
            self.tally.num_lost += len(segment.totals)
            self._segments.remove(segment)
        segment.sequence = receipt.stored
        segment.again.clear()
        if receipt.stored == 0 and self._is_beyond_recall(segment.table, receipt.now_us):
            self.tally.num_lost += len(changes)
        else:
            self._put_back(segment, changes)

    def _is_beyond_recall(self, table: Table, now_us: int) -> bool:
        """The store may have folded the table and forgotten what it had of each writer."""
        echo_s = (2 + self._lifetimes.echo_epochs) * self._lifetimes.epoch_s
        return table.epoch + echo_s <= now_us // 1_000_000

    def _changes(self, segment: Segment, batch: Batch) -> dict[str, int]:
        changes = {name: n - segment.totals.get(name, 0) for name, n in batch.totals.items()}
        return {name: change for name, change in changes.items() if change}

    def _put_back(self, segment: Segment, changes: Mapping[str, int]) -> None:
        """These wait again. If a late copy of their batch is applied, a repair takes it back."""
        _add(self._pending.setdefault(segment.table.tenant, {}), changes)
        for name in changes:
            segment.totals.setdefault(name, 0)

    def _drop_closed(self, now_us: int) -> None:
        for epoch in {segment.table.epoch for segment in self._segments}:
            if self._lifetimes.is_closed(epoch, now_us):
                self.drop(epoch)


def _acknowledge(segment: Segment, batch: Batch) -> None:
    if any(segment.totals.get(name) != total for name, total in batch.totals.items()):
        segment.whole.clear()
    segment.totals.update(batch.totals)
    segment.sequence = batch.sequence
    for name in batch.totals:
        segment.again.pop(name, None)
    if not segment.again:
        segment.whole.add(batch.sequence)


def _is_lost(segment: Segment, reading: Reading, lifetimes: Lifetimes) -> bool:
    """Whether the store is not at what it acknowledged. A closed table is history."""
    table, state = segment.table, reading.tables.get(segment.table)
    if lifetimes.is_closed(table.epoch, reading.now_us):
        return False
    if state is not None:
        record = state.writers.get(segment.writer)
        return record is None or record.sequence != segment.sequence
    if table in reading.versions:
        return False
    past = (other for other in reading.versions if other.kind == "past")
    return not any(other.tenant == table.tenant and other.epoch >= table.epoch for other in past)


def _batch(segment: Segment, totals: Mapping[str, int]) -> Batch:
    segment.issued += 1
    return Batch(segment.table, segment.writer, segment.sequence, segment.issued, totals)


def _first(names: Iterable[str]) -> list[str]:
    return [name for name, _ in zip(names, range(MAX_CELLS), strict=False)]


def _add(cells: dict[str, int], changes: Mapping[str, int]) -> None:
    for name, change in changes.items():
        cells[name] = cells.get(name, 0) + change
        if not cells[name]:
            del cells[name]
