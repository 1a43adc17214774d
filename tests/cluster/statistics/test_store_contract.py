"""What every statistics store promises, in memory and on real servers alike."""

from __future__ import annotations

import pytest
from statistics_backends import LONG, SHORT, Backend

from cluster.statistics.cells import MAX_TOTAL
from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.store import (
    MAX_CELLS,
    Batch,
    Fold,
    Receipt,
    StatisticsStore,
    Status,
    TableState,
    WriterRecord,
)


@pytest.fixture
def store(backend: Backend) -> StatisticsStore:
    return backend.store(LONG)


def live(store: StatisticsStore, tenant: str = "t") -> Table:
    return Table(tenant, LONG.epoch(store.read({}, 0).now_us))


def past(table: Table) -> Table:
    return Table(table.tenant, table.epoch, "past")


def send(
    store: StatisticsStore, writer: str, base: int, sequence: int, *tables: Table, **totals: int
) -> Receipt:
    table = tables[0] if tables else live(store)
    return store.merge(Batch(table, writer, base, sequence, totals))


def state(store: StatisticsStore, table: Table | None = None) -> TableState:
    return store.read({}, 99).tables.get(table or live(store), TableState())


def test_writers_are_added_up_and_totals_replace_totals(store: StatisticsStore) -> None:
    assert send(store, "a", 0, 1, x=3, y=1).status is Status.APPLIED
    assert send(store, "b", 0, 1, x=4).status is Status.APPLIED
    assert send(store, "a", 1, 2, x=5).status is Status.APPLIED
    assert state(store).cells == {"x": 9, "y": 1}
    assert state(store).writers == {"a": WriterRecord(2), "b": WriterRecord(1)}


def test_a_doubled_or_late_batch_counts_once(store: StatisticsStore) -> None:
    send(store, "a", 0, 1, x=3)
    send(store, "a", 1, 2, x=8)
    for base, sequence, total in ((0, 1, 3), (1, 2, 8)):
        receipt = send(store, "a", base, sequence, x=total)
        assert (receipt.status, receipt.stored) == (Status.DUPLICATE, 2)
    assert state(store).cells == {"x": 8}


def test_a_batch_on_another_base_is_told_where_the_store_is(store: StatisticsStore) -> None:
    send(store, "a", 0, 1, x=3)
    receipt = send(store, "a", 2, 3, x=9)
    assert (receipt.status, receipt.stored) == (Status.BEHIND, 1)
    assert state(store).cells == {"x": 3}
    assert send(store, "a", 1, 4, x=9).status is Status.APPLIED
    assert state(store).cells == {"x": 9}


def test_counts_may_fall_and_large_ones_keep_every_digit(store: StatisticsStore) -> None:
    for writer in "ab":
        send(store, writer, 0, 1, x=MAX_TOTAL, y=-MAX_TOTAL)
        send(store, writer, 1, 2, x=MAX_TOTAL - 1, y=MAX_TOTAL - 1)
    assert state(store).cells == {"x": 2 * MAX_TOTAL - 2, "y": 2 * MAX_TOTAL - 2}


def test_a_batch_of_the_largest_size_is_taken(store: StatisticsStore) -> None:
    totals = {f"s:lookup:{index}:16:r": index + 1 for index in range(MAX_CELLS)}
    assert send(store, "a", 0, 1, **totals).status is Status.APPLIED
    assert state(store).cells == totals


def test_tenants_and_epochs_are_apart_whatever_their_names(store: StatisticsStore) -> None:
    epoch = live(store).epoch
    tables = [Table(tenant, epoch) for tenant in ("", "a", "a:1", "{a}", "index", "é ")]
    tables.append(Table("a", epoch - LONG.epoch_s))
    for number, table in enumerate(tables, start=1):
        send(store, "w", 0, 1, table, x=number)
    found = store.read({}, 99).tables
    assert {table: found[table].cells["x"] for table in tables} == dict(
        zip(tables, range(1, 8), strict=True)
    )


def test_only_what_changed_is_read_again(store: StatisticsStore) -> None:
    first = send(store, "a", 0, 1, x=1)
    send(store, "a", 0, 1, live(store, "u"), x=1)
    assert first.version_before == 0
    reading = store.read({}, 99)
    assert reading.versions[live(store)] == first.version_after
    assert len(reading.tables) == 2
    assert store.read(reading.versions, 99).tables == {}
    second = send(store, "b", 0, 1, x=1)
    assert second.version_before == first.version_after < second.version_after
    assert list(store.read(reading.versions, 99).tables) == [live(store)]
    assert len(store.read({}, 1).tables) == 1


def test_a_version_is_not_used_twice_across_a_roll_back(backend: Backend) -> None:
    store = backend.store(LONG)
    send(store, "a", 0, 1, x=1)
    kept = backend.keep()
    lost = send(store, "a", 1, 2, x=2)
    backend.restore(kept)
    if hasattr(backend, "now_us"):
        backend.now_us += 1000
    again = send(store, "b", 0, 1, x=7)
    assert again.version_after != lost.version_after


def test_a_roll_back_is_found_out_by_the_next_batch(backend: Backend) -> None:
    store = backend.store(LONG)
    send(store, "a", 0, 1, x=1, y=1)
    kept = backend.keep()
    send(store, "a", 1, 2, x=5)
    backend.restore(kept)
    assert send(store, "a", 2, 3, y=2).stored == 1
    backend.flush()
    receipt = send(store, "a", 2, 3, y=2)
    assert (receipt.status, receipt.stored) == (Status.BEHIND, 0)
    assert state(store).cells == {}


def test_a_folded_writer_s_counts_stay_and_no_more_are_taken(store: StatisticsStore) -> None:
    send(store, "a", 0, 1, x=1)
    send(store, "a", 1, 2, x=2)
    store.fold(Fold(live(store), writers={"a": 1}))
    assert send(store, "a", 2, 3, x=3).status is Status.APPLIED, "it had moved on"
    store.fold(Fold(live(store), writers={"a": 3}))
    store.fold(Fold(live(store), writers={"a": 3}))
    for base, sequence in ((3, 4), (0, 1), (2, 3)):
        receipt = send(store, "a", base, sequence, x=99)
        assert (receipt.status, receipt.stored) == (Status.FOLDED, 3)
    assert state(store) == TableState({"x": 3}, {"a": WriterRecord(3, is_folded=True)})


def test_a_closed_table_takes_nothing(backend: Backend) -> None:
    store = backend.store(LONG)
    table = live(store)
    send(store, "a", 0, 1, x=1)
    closing_store = backend.store(SHORT)
    receipt = send(closing_store, "a", 1, 2, table, x=2)
    assert (receipt.status, receipt.stored) == (Status.FOLDED, 1)
    ahead = Table("t", table.epoch + 3 * LONG.epoch_s)
    assert send(store, "a", 0, 1, ahead, x=2).status is Status.FOLDED
    assert state(store).cells == {"x": 1}


def test_closed_tables_move_into_the_past_in_pieces(backend: Backend) -> None:
    store, closing_store = backend.store(LONG), backend.store(SHORT)
    table = live(store)
    send(store, "a", 0, 1, x=3, y=5, z=-1)
    piece = Fold(table, past(table), PAST_UNIT / 2, ("x", "nothing"), {"a": 1})
    closing_store.fold(piece)
    closing_store.fold(piece)
    tables = store.read({}, 99).tables
    assert tables[table] == TableState({"y": 5, "z": -1}, {"a": WriterRecord(1, True)})
    assert tables[past(table)].cells == {"x": 3 * PAST_UNIT // 2}
    closing_store.fold(Fold(table, past(table), 0.3, ("y", "z"), {"a": 1}, is_last=True))
    assert store.read({}, 99).tables == {
        past(table): TableState({"x": 3 * PAST_UNIT // 2, "y": 1, "z": -1})
    }
    later = Table("t", table.epoch + 5, "past")
    closing_store.fold(Fold(past(table), later, 0.5, ("x", "y", "z"), {}, is_last=True))
    assert store.read({}, 99).tables == {later: TableState({"x": 3 * PAST_UNIT // 4, "z": -1})}
    assert send(store, "a", 1, 2, table, x=9).status is Status.FOLDED, "its echo is kept"


def test_an_open_table_s_cells_stay_and_a_table_with_cells_is_not_last(backend: Backend) -> None:
    store, closing_store = backend.store(LONG), backend.store(SHORT)
    table = live(store)
    send(store, "a", 0, 1, x=3, y=1)
    store.fold(Fold(table, past(table), 1.0, ("x", "y"), {}, is_last=True))
    assert state(store).cells == {"x": 3, "y": 1}
    closing_store.fold(Fold(table, past(table), 1.0, ("x",), {}, is_last=True))
    assert state(store).cells == {"y": 1}


def test_what_was_cleared_stays_gone(store: StatisticsStore) -> None:
    send(store, "a", 0, 1, x=3)
    send(store, "b", 0, 1, x=4)
    store.clear(live(store), {"a": WriterRecord(1)})
    assert state(store).cells == {}
    assert send(store, "b", 1, 2, x=5).status is Status.FOLDED
    assert send(store, "c", 0, 1, x=1).status is Status.APPLIED
    assert state(store).cells == {"x": 1}


def test_a_cleared_past_is_gone(backend: Backend) -> None:
    store, closing_store = backend.store(LONG), backend.store(SHORT)
    table = live(store)
    send(store, "a", 0, 1, x=3)
    closing_store.fold(Fold(table, past(table), 1.0, ("x",), {"a": 1}, is_last=True))
    store.clear(past(table), {})
    assert store.read({}, 99).versions == {}
