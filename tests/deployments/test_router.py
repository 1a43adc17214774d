"""The router without Ray, on a real Redis: its store, and the changes to drafters that it keeps."""

from __future__ import annotations

import pytest
from router_handles import Handle
from statistics_backends import POOL

from cluster.config import DrafterSection
from cluster.drafter_changes import AddDrafter, DrafterChangeError, DrafterChanges, RemoveDrafter
from cluster.statistics.client import UrlError
from cluster.statistics.drafter_store import DrafterStore
from cluster.statistics.keys import Table
from cluster.statistics.store import Batch, Fold, StoreError
from deployments.router import Router
from deployments.router_store import RouterStore, Unreachable


def test_the_router_s_store_is_the_store(router: Router) -> None:
    store = RouterStore(Handle(router), POOL)
    epoch = store.read({}, 0).now_us // 1_000_000
    table = Table("t", epoch - epoch % (6 * 3600))
    store.merge(Batch(table, "w", 0, 1, {"x": 5}))
    store.fold(Fold(table, writers={"w": 1}))
    (state,) = store.read({}, 9).tables.values()
    assert state.cells == {"x": 5}
    assert state.writers["w"].is_folded
    store.clear(table, state.writers)
    assert store.read({}, 9).tables[table].cells == {}


def test_a_redis_that_is_away_is_said_in_words_and_logs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    store = RouterStore(Handle(Router({})), POOL)
    with pytest.raises(StoreError, match="ConnectionError"):
        store.read({}, 0)
    assert caplog.records == []


def test_a_call_that_takes_too_long_is_given_up(router: Router) -> None:
    handle = Handle(router)
    handle.error = TimeoutError("late")
    with pytest.raises(StoreError, match="router: TimeoutError: late"):
        RouterStore(handle, POOL).read({}, 0)
    assert handle.responses[0].is_cancelled


def test_a_url_that_cannot_be_used_stops_the_router_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1/nothing")
    with pytest.raises(UrlError, match="no database"):
        Router({})


def test_changes_to_drafters_outlive_the_router_and_a_store_that_forgets(router: Router) -> None:
    add = AddDrafter(DrafterSection(name="new", kind="suffix"))
    first = router.change_drafters("fp", add)
    assert isinstance(first, DrafterChanges)
    refused = router.change_drafters("fp", add)
    assert isinstance(refused, DrafterChangeError)
    assert refused.kind == "conflict"
    assert Router({}).drafter_changes("fp") == first
    client = router._stores._client
    client.flushall()
    assert router.drafter_changes("fp") == first
    assert DrafterStore(client).read("fp") == first


def added(name: str) -> AddDrafter:
    return AddDrafter(DrafterSection(name=name, kind="suffix"))


def test_what_two_routers_accepted_is_kept_when_the_store_forgets(router: Router) -> None:
    """The one knows of five changes and the other of three of them when all is flushed."""
    other = Router({})
    for number in range(3):
        router.change_drafters("fp", added(f"a{number}"))
    other.drafter_changes("fp")
    router.change_drafters("fp", added("a3"))
    router.change_drafters("fp", RemoveDrafter("a0"))
    router._stores._client.flushall()
    late = other.change_drafters("fp", added("late"))
    assert isinstance(late, DrafterChanges)
    for each in (router, other, Router({})):
        found = each.drafter_changes("fp")
        assert isinstance(found, DrafterChanges)
        assert {one.name for one in found.added} == {"a0", "a1", "a2", "a3", "late"}
        assert found.removed == ("a0",)
        assert found.version > late.version
    assert DrafterStore(router._stores._client).read("fp") == found


def test_without_a_store_drafters_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    router = Router({})
    assert isinstance(router.drafter_changes("fp"), Unreachable)
    assert isinstance(router.change_drafters("fp", RemoveDrafter("lookup")), Unreachable)
