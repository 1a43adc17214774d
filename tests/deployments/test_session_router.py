"""Which target Serve's router is told to take: by session, by attempt, the silent ones last."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.route import ANYWHERE, Route, Suspicion, beginning_of, ranked, session_of
from deployments.session_router import SessionRouter


@dataclass(frozen=True)
class TargetId:
    unique_id: str


@dataclass
class Targets:
    """A router over targets that are only names; its own start asks a whole Serve for more."""

    names: tuple[str, ...]
    router: Any = field(default_factory=lambda: SessionRouter.__new__(SessionRouter))
    suspicion: Suspicion = field(default_factory=Suspicion)

    def __post_init__(self) -> None:
        ids = [TargetId(name) for name in self.names]
        self.router._deployment_id = "Target"
        self.router._num_virtual_nodes = 100
        self.router._num_fallback_replicas = 63
        self.router._replicas = {each: SimpleNamespace(replica_id=each) for each in ids}
        self.router._rebuild_ring(frozenset(ids))

    def order(self, session_id: str, request_id: str = "a-uuid") -> list[str]:
        metadata = SimpleNamespace(session_id=session_id, internal_request_id=request_id)
        pending = SimpleNamespace(metadata=metadata, routing_context=SimpleNamespace())
        candidates = list(self.router._replicas.values())
        ranks = asyncio.run(self.router.choose_replicas(candidates, pending))
        return [replica.replica_id.unique_id for (replica,) in ranks]


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> Targets:
    targets = Targets(("a", "b", "c"))
    monkeypatch.setattr("deployments.session_router.SUSPICION", targets.suspicion)
    return targets


def test_a_session_stays_with_its_target_and_sessions_spread(targets: Targets) -> None:
    firsts = [targets.order(Route(f"s{i}").session_id)[0] for i in range(300)]
    assert firsts == [targets.order(Route(f"s{i}").session_id)[0] for i in range(300)]
    assert min(Counter(firsts).values()) > 50


def test_most_sessions_stay_when_a_target_leaves(targets: Targets) -> None:
    fewer = Targets(("a", "b"))
    sessions = [Route(f"s{i}").session_id for i in range(100)]
    stayed = [s for s in sessions if targets.order(s)[0] != "c"]
    assert all(fewer.order(s)[0] == targets.order(s)[0] for s in stayed)


def test_every_attempt_is_at_another_target(targets: Targets) -> None:
    firsts = [targets.order(Route("s", attempt).session_id)[0] for attempt in range(3)]
    assert sorted(firsts) == ["a", "b", "c"]
    assert sorted(targets.order(Route("s", 1).session_id)) == ["a", "b", "c"]


def test_a_target_that_was_silent_is_the_last_for_every_session(targets: Targets) -> None:
    silent = targets.order(Route("s").session_id)[0]
    targets.suspicion.note(Route("s").session_id)
    for i in range(20):
        assert targets.order(Route(f"s{i}").session_id)[-1] == silent


def test_the_targets_that_may_be_asked_are_known(targets: Targets) -> None:
    targets.order(Route("s").session_id)
    assert targets.suspicion.num_trusted == 3
    targets.suspicion.note(Route("s").session_id)
    targets.order(Route("t").session_id)
    assert targets.suspicion.num_trusted == 2
    Targets(("d",)).order(Route("s").session_id)
    assert targets.suspicion.num_trusted == 1


def test_requests_without_a_session_spread(targets: Targets) -> None:
    firsts = {targets.order("", f"request-{i}")[0] for i in range(50)}
    assert firsts == {"a", "b", "c"}


def test_a_conversation_has_one_session_and_others_have_others() -> None:
    opening = ["system: be brief", "user: hi"]
    session = session_of("a", opening)
    assert session_of("a", opening) == session
    assert session_of("b", opening) != session
    assert session_of("a", ["system: be brief", "user: ho"]) != session
    assert "brief" not in session
    assert beginning_of(range(1000)) == beginning_of(range(500))


def test_later_attempts_go_round_the_targets() -> None:
    targets = ["a", "b", "c"]
    assert [ranked(targets, attempt)[0] for attempt in range(5)] == ["a", "b", "c", "a", "b"]
    assert ranked([], 3) == []
    assert Route.read(Route("x#y", 7).session_id) == Route("x#y", 7)
    assert Route.read("a-uuid") == Route("a-uuid")
    assert ANYWHERE.session_id == ""


def test_a_silent_target_is_tried_last_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    suspicion, now_s = Suspicion(), [100.0]
    monkeypatch.setattr("deployments.route.time.monotonic", lambda: now_s[0])
    suspicion.chose("one", ["a", "b", "c"])
    suspicion.note("one")
    suspicion.note("never chosen")
    assert suspicion.order(["a", "b", "c"]) == ["b", "c", "a"]
    now_s[0] += 31.0
    assert suspicion.order(["a", "b", "c"]) == ["a", "b", "c"]
