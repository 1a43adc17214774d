"""Which target Serve's router is told to take: by session, by attempt, the silent ones last."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.route import Route, Suspicion
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
