"""An exchange over a store that answers: counts of all, epochs that close, writers that leave."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from statistics_backends import NOW_US
from statistics_world import HOUR, World, counts

from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.store import Reading


def test_what_one_counts_the_other_knows_after_a_few_steps(world: World) -> None:
    first, second = world.exchange(world.store()), world.exchange(world.store())
    first.add("t", {"x": 3})
    second.add("t", {"x": 4, "y": 1})
    for _ in range(3):
        assert first.step()
        assert second.step()
    assert counts(first) == counts(second) == {"x": 7, "y": 1}
    assert world.merged() == {"x": 7, "y": 1}


def test_a_fresh_process_starts_with_all_there_is(world: World) -> None:
    first = world.exchange(world.store())
    for index in range(100):
        first.add(f"t{index}", {"x": 1})
    first.step()
    first.step()
    fresh = world.exchange(world.store())
    assert fresh.snapshot.tenants == []
    fresh.step()
    assert len(fresh.snapshot.tenants) == 100


def test_alone_a_process_never_reads_its_own_counts_back(world: World) -> None:
    store = world.store()
    exchange = world.exchange(store)
    exchange.step()
    reads: list[int] = []
    read = store.store.read

    class Reader:
        def __getattr__(self, name: str) -> object:
            return getattr(store.store, name)

        def read(self, known: Mapping[Table, int], max_tables: int) -> Reading:
            reading = read(known, max_tables)
            reads.append(len(reading.tables))
            return reading

    alone = world.exchange(Reader())  # type: ignore[arg-type]  # the rest is passed on
    for _ in range(6):
        alone.add("t", {"x": 1})
        alone.step()
    assert sum(reads) == 0
    assert counts(alone) == {"x": 6}


def test_closed_epochs_move_into_the_past_and_decay(world: World) -> None:
    exchanges = [world.exchange(world.store()) for _ in range(2)]
    for _ in range(4):
        for exchange in exchanges:
            exchange.add("t", {"x": 64})
            exchange.step()
            exchange.step()
        world.wait(HOUR.epoch_s)
    for _ in range(6):
        for exchange in exchanges:
            exchange.step()
    tables = world.memory().read({}, 99).tables
    epoch = HOUR.epoch(world.backend.now_us)
    assert sorted(table.kind for table in tables) == ["live", "past"]
    assert tables[Table("t", epoch - 2 * HOUR.epoch_s, "past")].cells == {
        "x": PAST_UNIT * (128 + 64 + 32)
    }
    assert counts(exchanges[0]) == {"x": 64 + 32 + 16 + 8}
    assert counts(exchanges[0]) == counts(exchanges[1])


def test_writers_that_fell_silent_are_folded_and_may_come_back(world: World) -> None:
    silent, watcher = (world.exchange(world.store()) for _ in range(2))
    silent.add("t", {"x": 5})
    silent.step()
    for _ in range(30):
        world.wait(60)
        watcher.step()
    (table,) = world.memory().read({}, 99).tables
    records = world.memory().read({}, 99).tables[table].writers
    assert [record.is_folded for record in records.values()] == [True]
    silent.add("t", {"x": 1})
    silent.step()
    silent.step()
    assert world.merged() == counts(silent) == {"x": 6}


def test_one_that_leaves_sends_all_and_lets_go_of_its_totals(world: World) -> None:
    exchange = world.exchange(world.store())
    exchange.add("t", {f"x{index}": 1 for index in range(1200)})
    assert exchange.finish()
    (state,) = world.memory().read({}, 99).tables.values()
    assert len(state.cells) == 1200
    assert all(record.is_folded for record in state.writers.values())


@pytest.mark.parametrize(
    ("tenant", "counts", "expected"),
    [
        ("t", {"y": 1, "x": 2**60}, "x: 1152921504606846976 is out of range"),
        ("t", {"y": 1, "@w": 1}, "'@w' is no name of a cell"),
        ("t", {"y": 1, "é": 1}, "'é' is no name of a cell"),
        ("t", {"y": 1, "x" * 201: 1}, "is no name of a cell"),
        ("\ud800", {"y": 1}, "is no tenant"),
        ("t" * 201, {"y": 1}, "is no tenant"),
    ],
)
def test_what_no_store_could_hold_is_refused_whole(
    world: World, tenant: str, counts: dict[str, int], expected: str
) -> None:
    exchange = world.exchange(world.store())
    with pytest.raises(ValueError, match=expected):
        exchange.add(tenant, counts)
    exchange.step()
    assert exchange.snapshot.tenants == []


def test_the_present_is_the_store_s(world: World) -> None:
    world.wait(3 * HOUR.epoch_s)
    exchange = world.exchange(world.store())
    assert exchange.snapshot.epoch is None
    exchange.step()
    assert exchange.snapshot.epoch == HOUR.epoch(world.backend.now_us) > NOW_US // 1_000_000
