"""Targets and the router without Ray: real engine threads, selectors, stores and a real Redis."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from statistics_backends import POOL, server

from cluster.config import ClusterConfig, DrafterSection, TargetSettings
from cluster.drafter_changes import (
    AddDrafter,
    DrafterChangeError,
    DrafterChanges,
    RemoveDrafter,
)
from cluster.statistics.client import UrlError
from cluster.statistics.drafter_store import DrafterStore
from cluster.statistics.keys import Pool, Table
from cluster.statistics.store import Batch, Fold, StoreError
from deployments.engine_thread import EngineStoppedError, EngineThread
from deployments.router import Router
from deployments.router_store import RouterStore, Unreachable
from deployments.selectors import Selectors
from deployments.sharing import Sharing, pool
from policies.cost_model import CostModel
from policies.selector import Context, Outcome
from policies.survival import SurvivalSelector

WAIT_S = 20.0


class IdleEngine:
    has_work = False

    def submit(self, request: object) -> None: ...

    def check_room(self, tenant: str, num_coming: int = 0) -> None: ...

    def cancel(self, sequence_id: str) -> None: ...

    def step(self) -> list[Any]:
        raise AssertionError("there is nothing to do")


class Response:
    """`error` stands for what Ray raises; nothing comes before `gate` is open."""

    def __init__(
        self, call: Callable[[], object], error: Exception | None, gate: threading.Event
    ) -> None:
        self.call = call
        self.error = error
        self.gate = gate
        self.is_cancelled = False

    def result(self, timeout_s: float) -> object:
        assert self.gate.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return self.call()

    def cancel(self) -> None:
        self.is_cancelled = True


class Handle:
    """A Serve handle of a router in this process; `router` None is away."""

    def __init__(self, router: Router | None) -> None:
        self.router = router
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.responses: list[Response] = []

    @property
    def ask(self) -> Handle:
        return self

    def remote(self, *arguments: Any) -> Response:
        if self.router is None:
            raise RuntimeError("no replica")
        router = self.router
        self.responses.append(Response(lambda: router.ask(*arguments), self.error, self.gate))
        return self.responses[-1]


class FakeTarget:
    """The part of a target that learns and shares."""

    def __init__(self, config: ClusterConfig, handle: Handle) -> None:
        longest = {drafter.name: drafter.max_draft_length for drafter in config.drafters}
        selectors = Selectors(longest, CostModel())
        selector, _ = selectors.build(TargetSettings())
        assert isinstance(selector, SurvivalSelector)
        self.selector = selector
        self.thread = EngineThread(IdleEngine())
        self.sharing = Sharing(config, handle, self.thread)
        self.sharing.start(selectors.shared)

    def learn(self, accepted: int, num_rounds: int) -> None:
        self.thread.call(lambda: self._learn(accepted, num_rounds))

    @property
    def expects_much(self) -> bool:
        """Of a draft of 8 tokens, in the context that it learnt in."""
        return self.thread.call(self._expected) > 0.5

    def close(self) -> None:
        self.sharing.stop()
        self.thread.stop()

    def _expected(self) -> float:
        table = self.selector.table
        row = table.rows([context()])
        return float(table.expected(row)[row[0], 1, 8, 8])

    def _learn(self, accepted: int, num_rounds: int) -> None:
        for _ in range(num_rounds):
            (decision,) = self.selector.choose([context()])
            found = [Outcome.of(decision, min(accepted, decision.draft_length))]
            for name in decision.evaluated:
                found.append(Outcome(decision.id, decision.table_version, name, 8, accepted))
            self.selector.observe(found)


def context() -> Context:
    return Context("a", "default", {"lookup": 8}, {"lookup": 9})


def safetensors(values: bytes) -> bytes:
    """A file of one tensor."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)]}}).encode()
    return len(header).to_bytes(8, "little") + header + values


def wait_until(condition: Callable[[], bool], at_most_s: float = WAIT_S) -> None:
    start_s, pause = time.monotonic(), threading.Event()
    while not condition():
        assert time.monotonic() - start_s < at_most_s
        pause.wait(0.02)


@pytest.fixture
def config(model_dir: Path) -> ClusterConfig:
    (model_dir / "config.json").write_text("{}")
    drafters = [{"name": "lookup", "kind": "prompt_lookup", "max_draft_length": 8}]
    return ClusterConfig.model_validate({"target": {"model": str(model_dir)}, "drafters": drafters})


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    with server("wheel", tmp_path) as running:
        monkeypatch.setenv("REDIS_URL", running.url)
        yield Router({})


def test_targets_behind_two_routers_go_by_what_either_has_learnt(
    config: ClusterConfig, router: Router
) -> None:
    first, second = (FakeTarget(config, Handle(each)) for each in (router, Router({})))
    assert second.expects_much
    first.learn(0, 400)
    wait_until(lambda: not second.expects_much, at_most_s=1.0)
    third = FakeTarget(config, Handle(router))
    wait_until(lambda: not third.expects_much, at_most_s=1.0)
    for target in (first, second, third):
        target.close()


def test_when_all_is_started_again_nothing_is_forgotten(
    config: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("HEDGEROW_STATE", str(tmp_path / "state"))
    first_router = Router({})
    first = FakeTarget(config, Handle(first_router))
    first.learn(0, 400)
    wait_until(lambda: first.sharing.counters.writer.num_sent > 0)
    first.close()
    first_router.__del__()
    second_router = Router({})
    second = FakeTarget(config, Handle(second_router))
    assert second.expects_much
    wait_until(lambda: not second.expects_much)
    second.close()
    second_router.__del__()


def test_a_target_without_a_router_goes_on_and_is_heard_when_one_comes(
    config: ClusterConfig, router: Router
) -> None:
    handle = Handle(None)
    target = FakeTarget(config, handle)
    target.learn(0, 400)
    assert not target.expects_much
    wait_until(lambda: target.sharing.counters.num_failures > 0)
    assert "no replica" in str(target.sharing.counters.last_error)
    handle.router = router
    wait_until(lambda: target.sharing.counters.writer.num_sent > 0)
    assert not target.expects_much
    target.close()


def test_the_engine_does_not_wait_for_a_router_that_is_silent(
    config: ClusterConfig, router: Router
) -> None:
    handle = Handle(router)
    handle.gate.clear()
    target = FakeTarget(config, handle)
    wait_until(lambda: len(handle.responses) > 0)
    target.learn(0, 400)
    assert not target.expects_much
    assert len(handle.responses) == 1
    handle.gate.set()
    wait_until(lambda: target.sharing.counters.writer.num_sent > 0)
    assert not target.expects_much
    target.close()


def test_what_a_target_learnt_last_is_sent_when_it_ends(
    config: ClusterConfig, router: Router
) -> None:
    target = FakeTarget(config, Handle(router))
    target.learn(0, 5)
    target.close()
    (state,) = RouterStore(Handle(router), pool(config)).read({}, 9).tables.values()
    assert state.cells["s:lookup:8:1:r"] == 5
    assert all(record.is_folded for record in state.writers.values())


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


def test_the_pool_follows_the_model_and_the_drafters_and_nothing_else(
    config: ClusterConfig, model_dir: Path
) -> None:
    def changed(**sections: object) -> ClusterConfig:
        return ClusterConfig.model_validate(config.model_dump(mode="json") | sections)

    target = config.model_dump(mode="json")["target"]
    (model_dir / "model.safetensors").write_bytes(safetensors(b"first weights"))
    before = pool(config)
    same = [{"name": "lookup", "kind": "prompt_lookup", "max_draft_length": 4}]
    assert pool(changed(drafters=same)) == pool(config)
    assert pool(changed(target=target | {"device": "cuda"})) == pool(config)
    assert pool(changed(drafters=[{"name": "lookup", "kind": "suffix"}])) != pool(config)
    (model_dir / "model.safetensors").write_bytes(safetensors(b"other weight "))
    assert pool(config) != before


def test_the_pool_follows_what_a_drafter_was_trained_to(
    config: ClusterConfig, tmp_path: Path
) -> None:
    def of(**keys: object) -> Pool:
        section = {"name": "code", "kind": "head", **keys}
        return pool(
            ClusterConfig.model_validate(config.model_dump(mode="json") | {"drafters": [section]})
        )

    folders = [str(tmp_path / name) for name in ("one", "same", "other")]
    for folder, weights in zip(folders, (b"one", b"one", b"two"), strict=True):
        Path(folder).mkdir()
        Path(folder, "config.json").write_text("{}")
        Path(folder, "weights.safetensors").write_bytes(safetensors(weights))
    one, same, other = (of(path=folder) for folder in folders)
    assert one == same
    assert one != other
    assert of(path=folders[0], stop_threshold=0.5) != one
    for name in ("weights.safetensors", "acceptance.safetensors", "calibration.json"):
        before = of(path=folders[0])
        Path(folders[0], name).write_bytes(safetensors(b"new"))
        assert of(path=folders[0]) != before
    assert of(path="not/here") != of(path="nor/there")


def test_a_call_returns_raises_and_ends_with_the_thread() -> None:
    thread = EngineThread(IdleEngine())
    assert thread.call(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0)
    thread.stop()
    with pytest.raises(EngineStoppedError):
        thread.call(lambda: 5)


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
