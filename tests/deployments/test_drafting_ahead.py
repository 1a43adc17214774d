"""A host that drafts ahead does it in its spare time, and only where it was told to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from echo_host import Echo, Target, ask, opened, tokens_of
from hosting import IDENTITY

from deployments.host_service import HostService
from deployments.messages import Close, Known, Verified
from engine.drafters.drafter import DraftRequest


class Eager(Echo):
    """Has three tokens to add to every draft."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead: list[list[DraftRequest]] = []
        self.breaks = False

    def draft_ahead(self, requests: Sequence[DraftRequest]) -> bool:
        if self.breaks:
            raise RuntimeError("out of memory")
        self.ahead.append(list(requests))
        return len(self.ahead) < 3


@pytest.fixture
def eager() -> Eager:
    return Eager()


@pytest.fixture
def target(eager: Eager) -> Target:
    return Target(HostService([eager], IDENTITY, drafts_ahead=True))


def test_it_goes_on_until_there_is_no_more_to_draft(target: Target, eager: Eager) -> None:
    target.send(opened(), opened(2), ask(3), ask(3, number=2))
    assert not eager.ahead, "answers come first"
    target.settle()
    assert [len(requests) for requests in eager.ahead] == [2, 2, 2]
    assert {request.draft_length for request in eager.ahead[0]} == {5}


def test_it_does_not_unless_it_was_told_to(eager: Eager) -> None:
    target = Target(HostService([eager], IDENTITY))
    target.send(opened(), ask(3))
    target.settle()
    assert not eager.ahead


def test_questions_and_reading_come_first(target: Target, eager: Eager) -> None:
    target.send(opened(), ask(3))
    assert tokens_of(target.send(ask(3, (8,)))) == (8, 8)
    target.send(Verified((Known(1, 4, tuple(range(16))),)))
    assert not eager.ahead
    target.settle()
    assert len(eager.ahead) == 3


def test_who_has_left_is_not_drafted_on(target: Target, eager: Eager) -> None:
    target.send(opened(), opened(2), ask(3), ask(3, number=2), Close((1,)))
    target.settle()
    assert [len(requests) for requests in eager.ahead] == [1, 1, 1]
    target.send(Close((2,)))
    assert not target.service.has_work


def test_a_drafter_that_fails_starts_afresh_and_goes_on(target: Target, eager: Eager) -> None:
    eager.breaks = True
    target.send(opened(), ask(3))
    target.settle()
    assert len(eager.forgotten) == 1
    assert tokens_of(target.send(ask(3, (7,)))) == (7, 7)


def test_drafters_that_cannot_are_left_alone() -> None:
    target = Target(HostService([Echo()], IDENTITY, drafts_ahead=True))
    target.send(opened(), ask(3))
    target.settle()
    assert not target.service.has_work
