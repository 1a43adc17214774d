"""The document of drafter changes on real servers: replaced by version, and only by that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from statistics_backends import RedisBackend

from cluster.config import ClusterConfig, DrafterSection
from cluster.drafter_changes import AddDrafter, DrafterChanges
from cluster.statistics.drafter_store import DrafterStore
from cluster.statistics.keys import drafters_key

MODEL = "fp_model"


@pytest.fixture
def store(redis_backend: RedisBackend) -> DrafterStore:
    return DrafterStore(redis_backend.client)


def with_drafter(before: DrafterChanges, name: str) -> DrafterChanges:
    section = DrafterSection.model_validate({"name": name, "kind": "suffix"})
    return before.after(AddDrafter(section), ClusterConfig())


def test_a_document_replaces_the_version_that_it_was_made_from(store: DrafterStore) -> None:
    nothing = store.read(MODEL)
    assert nothing == DrafterChanges()
    first = with_drafter(nothing, "a")
    assert store.replace(MODEL, 0, first)
    assert store.read(MODEL) == first
    assert not store.replace(MODEL, 0, with_drafter(nothing, "b"))
    assert store.replace(MODEL, 1, with_drafter(first, "b"))
    assert [each.name for each in store.read(MODEL).added] == ["a", "b"]
    assert store.read("fp_other") == DrafterChanges()


def test_of_changes_made_at_once_none_is_lost(store: DrafterStore) -> None:
    def add(index: int) -> None:
        done = False
        while not done:
            before = store.read(MODEL)
            done = store.replace(MODEL, before.version, with_drafter(before, f"d{index}"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(16)))
    found = store.read(MODEL)
    assert found.version == 16
    assert {each.name for each in found.added} == {f"d{i}" for i in range(16)}


@pytest.mark.parametrize(
    ("damage", "version"),
    [
        (("SET", "x"), 0),
        (("HSET", "version", "5", "content", "{"), 5),
        (("HSET", "version", "many", "content", "[]"), 0),
        (("HSET", "version", "7"), 7),
    ],
)
def test_a_damaged_document_is_none_and_can_be_replaced(
    redis_backend: RedisBackend, store: DrafterStore, damage: tuple[str, ...], version: int
) -> None:
    redis_backend.client.execute_command(damage[0], drafters_key(MODEL), *damage[1:])
    found = store.read(MODEL)
    assert found == DrafterChanges(version=version)
    after = with_drafter(found, "a")
    assert store.replace(MODEL, version, after)
    assert store.read(MODEL) == after
