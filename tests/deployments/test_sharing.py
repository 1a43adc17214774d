"""Targets share what they learn through routers: real threads, selectors and Redis, no Ray."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_serving import IdleEngine
from router_handles import WAIT_S, Handle

from cluster.config import ClusterConfig
from cluster.settings import TargetSettings
from cluster.statistics.keys import Pool
from deployments.engine_thread import EngineThread
from deployments.router import Router
from deployments.router_store import RouterStore
from deployments.selectors import Selectors
from deployments.sharing import Sharing, pool
from policies.cost_model import CostModel
from policies.selector import Context, Outcome
from policies.survival import SurvivalSelector


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
