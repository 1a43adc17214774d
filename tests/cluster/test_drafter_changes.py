"""The document of changes: what it makes of a configuration, and what it refuses."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from cluster.config import ClusterConfig, DrafterSection
from cluster.drafter_changes import (
    AddDrafter,
    DrafterChange,
    DrafterChangeError,
    DrafterChanges,
    EnableDrafter,
    RemoveDrafter,
)

CONFIG = ClusterConfig.model_validate(
    {
        "drafters": [
            {"name": "lookup", "kind": "prompt_lookup"},
            {"name": "far", "kind": "suffix", "host": "edge"},
        ],
        "hosts": [{"name": "edge"}],
    }
)


def section(name: str, **keys: Any) -> DrafterSection:
    return DrafterSection.model_validate({"name": name, "kind": "prompt_lookup", **keys})


def after(*changes: DrafterChange) -> DrafterChanges:
    document = DrafterChanges()
    for change in changes:
        document = document.after(change, CONFIG)
    return document


def names(document: DrafterChanges, config: ClusterConfig = CONFIG) -> list[str]:
    return [drafter.name for drafter in document.apply(config).drafters]


@pytest.mark.parametrize(
    ("changes", "drafters", "disabled"),
    [
        ([], ["lookup", "far"], ()),
        ([AddDrafter(section("new"))], ["lookup", "far", "new"], ()),
        ([RemoveDrafter("lookup")], ["far"], ()),
        ([RemoveDrafter("far"), RemoveDrafter("lookup")], [], ()),
        ([EnableDrafter("far", False)], ["lookup", "far"], ("far",)),
        ([EnableDrafter("far", False), EnableDrafter("far", True)], ["lookup", "far"], ()),
        ([EnableDrafter("far", False), EnableDrafter("far", False)], ["lookup", "far"], ("far",)),
        ([EnableDrafter("far", False), RemoveDrafter("far")], ["lookup"], ()),
        ([AddDrafter(section("new")), RemoveDrafter("new")], ["lookup", "far"], ()),
        (
            [AddDrafter(section("new")), RemoveDrafter("new"), AddDrafter(section("new"))],
            ["lookup", "far", "new"],
            (),
        ),
        ([RemoveDrafter("lookup"), AddDrafter(section("lookup"))], ["lookup", "far"], ()),
        ([AddDrafter(section("new", host="edge"))], ["lookup", "far", "new"], ()),
    ],
)
def test_changes_lie_over_the_configuration(
    changes: Sequence[DrafterChange], drafters: list[str], disabled: tuple[str, ...]
) -> None:
    document = after(*changes)
    assert names(document) == drafters
    assert document.disabled == disabled
    assert document.version == len(changes)
    assert DrafterChanges.model_validate_json(document.model_dump_json()) == document


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ([AddDrafter(section("far"))], "conflict", "'far' is the name of a drafter"),
        (
            [
                AddDrafter(section("new")),
                RemoveDrafter("new"),
                AddDrafter(section("new", max_draft_length=2)),
            ],
            "conflict",
            "'new' was another drafter's",
        ),
        (
            [RemoveDrafter("lookup"), AddDrafter(section("lookup", max_draft_length=2))],
            "conflict",
            "'lookup' was another drafter's",
        ),
        ([AddDrafter(section("new", host="moon"))], "invalid", "configured hosts: edge"),
        ([RemoveDrafter("new")], "unknown", "there are: lookup, far"),
        ([RemoveDrafter("far"), RemoveDrafter("far")], "unknown", "there are: lookup"),
        ([RemoveDrafter("far"), EnableDrafter("far", True)], "unknown", "there are: lookup"),
        ([AddDrafter(section(f"d{i}")) for i in range(63)], "invalid", "too many drafters: 'd62'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(
    changes: Sequence[DrafterChange], kind: str, message: str
) -> None:
    before = after(*changes[:-1])
    with pytest.raises(DrafterChangeError, match=message) as caught:
        before.after(changes[-1], CONFIG)
    assert caught.value.kind == kind
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)


def test_what_no_longer_fits_the_configuration_is_passed_over() -> None:
    document = after(
        AddDrafter(section("new", host="edge")),
        AddDrafter(section("twin")),
        RemoveDrafter("far"),
        EnableDrafter("lookup", False),
    )
    other = {"drafters": [{"name": "twin", "kind": "suffix", "max_draft_length": 3}]}
    config = ClusterConfig.model_validate(other)
    assert document.apply(config) == config


def test_documents_that_went_apart_are_one_again() -> None:
    """Each name is as it was last said to be, in whichever of them."""
    shared = after(AddDrafter(section("a")), AddDrafter(section("b")))
    left = shared.after(RemoveDrafter("a"), CONFIG, 10).after(EnableDrafter("b", False), CONFIG, 40)
    right = shared.after(EnableDrafter("b", False), CONFIG, 20)
    right = right.after(EnableDrafter("b", True), CONFIG, 30).after(
        AddDrafter(section("c")), CONFIG, 50
    )
    merged = left.merged(right)
    assert names(merged) == ["lookup", "far", "b", "c"]
    assert merged.disabled == ("b",)
    assert merged.version == 51
    back = right.merged(left)
    assert (names(back), back.disabled, back.version) == (names(merged), ("b",), 51)
    for each in (left, right, shared):
        assert merged.merged(each) == merged
        assert each.merged(merged) == merged


def test_a_later_document_is_itself_however_late_the_other_comes() -> None:
    document, history = DrafterChanges(), [DrafterChanges()]
    for change in (
        AddDrafter(section("a")),
        EnableDrafter("a", False),
        RemoveDrafter("a"),
        AddDrafter(section("a")),
        EnableDrafter("lookup", False),
        EnableDrafter("lookup", True),
    ):
        document = document.after(change, CONFIG)
        history.append(document)
    for earlier in history:
        assert earlier.merged(document) == document.merged(earlier) == document


def test_a_drafter_that_two_added_under_one_name_is_the_later() -> None:
    start = DrafterChanges()
    early = start.after(AddDrafter(section("a", max_draft_length=2)), CONFIG, 10)
    late = start.after(AddDrafter(section("a", max_draft_length=3)), CONFIG, 20)
    for merged in (early.merged(late), late.merged(early)):
        assert [each.max_draft_length for each in merged.added] == [3]


def test_a_damaged_document_of_the_same_version_is_mended() -> None:
    known = after(AddDrafter(section("a")))
    damaged = DrafterChanges(version=known.version)
    merged = damaged.merged(known)
    assert merged.added == known.added
    assert merged.version == known.version + 1


def test_the_version_goes_up_also_where_the_clock_does_not() -> None:
    one = DrafterChanges().after(AddDrafter(section("a")), CONFIG, 100)
    assert one.version == 100
    assert one.after(RemoveDrafter("a"), CONFIG, 90).version == 101
