"""Keys and cells: every name is read back as what it was made from, others as nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.statistics.cells import LearnerCell, SurvivalCell, cell_of
from cluster.statistics.keys import Pool, Table, fingerprint, key, pool_of, table_of


@given(tenant=st.text(), epoch=st.integers(0, 10**12), kind=st.sampled_from(["live", "past"]))
def test_tables_are_read_back_from_their_names(tenant: str, epoch: int, kind: str) -> None:
    table = Table(tenant, epoch, "live" if kind == "live" else "past")
    assert table_of(table.name) == table


@pytest.mark.parametrize("name", ["", "live", "live:x:t", "live:1", "dead:1:t", "live:-1:t"])
def test_names_of_no_table_are_none(name: str) -> None:
    assert table_of(name) is None


def test_all_keys_of_a_pool_share_a_hash_tag() -> None:
    pool = Pool("m", "d")
    names = [key(pool, "index"), key(pool, "writer", "w", "live:1:{t}"), key(pool, "live:1:}{")]
    assert {name[name.index("{") : name.index("}") + 1] for name in names} == {"{1:m:d}"}
    assert len(set(names)) == 3
    assert pool_of(names[0]) == (1, pool)
    assert pool_of("hedgerow:statistics:index") is None
    assert pool_of("another:{1:m:d}:index") is None


@pytest.mark.parametrize("part", ["", "a:b", "{a}", "a b", "x" * 65])
def test_what_is_no_fingerprint_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="no fingerprint"):
        Pool(part, "d")


def test_fingerprints_are_equal_for_equal_values() -> None:
    assert fingerprint("m", {"b": 1, "a": [2]}) == fingerprint("m", {"a": [2], "b": 1})
    assert fingerprint("m", 1) != fingerprint("m", 2)
    Pool(fingerprint("m"), fingerprint("d"))


@pytest.mark.parametrize(
    "cell",
    [
        SurvivalCell("lookup", 12, 3, "at_risk"),
        SurvivalCell("a-b_c", 0, 1, "passed"),
        LearnerCell("hedge", "", 0, "count"),
        LearnerCell("ucbspec", "lookup", 16, "emitted"),
    ],
)
def test_cells_are_read_back_from_their_names(cell: SurvivalCell | LearnerCell) -> None:
    assert cell_of(cell.name) == cell


@pytest.mark.parametrize("name", ["", "s:a:1:1:q", "s:a:x:1:r", "s:a:1:1", "l:a:b:x:c", "@w"])
def test_names_of_no_cell_are_none(name: str) -> None:
    assert cell_of(name) is None


def test_a_colon_in_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="colon"):
        _ = SurvivalCell("a:b", 1, 1, "passed").name
