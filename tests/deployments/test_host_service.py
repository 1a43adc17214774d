"""A host without its socket: gaps, repeats, failures and bounds, whatever targets send."""

from __future__ import annotations

import random

import msgspec
import pytest
from echo_host import CLIENT, Echo, Target, ask, opened, tokens_of
from hosting import IDENTITY

from deployments.host_service import IDLE_S, HostService
from deployments.messages import (
    AskDraft,
    AskScore,
    Close,
    Drafted,
    DraftPart,
    Drafts,
    Hello,
    Identity,
    Known,
    NeedFrom,
    Open,
    Refused,
    ScorePart,
    Scores,
    Verified,
    Welcome,
    encode,
)
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.request import SamplingParams

NEWS = tuple(range(16))
"""As many tokens as a host reads before it is asked."""


def score(base: int, number: int = 1, finished: bool = False, name: str = "echo") -> AskScore:
    return AskScore(9, name, (ScorePart(Known(number, base, ()), finished),))


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def target(echo: Echo) -> Target:
    return Target(HostService([echo], IDENTITY))


def test_a_draft_follows_all_that_is_known(target: Target) -> None:
    assert tokens_of(target.send(opened(), ask(3, (8, 9)))) == (9, 9)
    assert target.send(Hello(4)) == [Welcome(4)]


def test_what_comes_twice_or_out_of_order_changes_nothing(target: Target) -> None:
    news = [Verified((Known(1, base, (base + 1, base + 2)),)) for base in (3, 5, 7)]
    target.send(opened())
    random.Random(0).shuffle(news)
    for _ in range(3):  # what comes too early is asked for again
        target.send(*news, opened())
    assert tokens_of(target.send(ask(9))) == (9, 9)


def test_a_gap_is_said_and_nothing_is_drafted_across_it(target: Target) -> None:
    target.send(opened())
    assert target.send(ask(5)) == [NeedFrom(1, 3), Drafts(9, (None,))]
    assert target.send(ask(1, number=2)) == [NeedFrom(2, 0), Drafts(9, (None,))]
    assert target.send(Verified((Known(1, 4, (5,)),))) == [NeedFrom(1, 3)]


def test_a_question_that_is_out_of_date_is_answered_with_nothing(target: Target) -> None:
    target.send(opened(), Verified((Known(1, 3, (4, 5)),)))
    assert tokens_of(target.send(ask(3))) is None


def test_a_prompt_that_comes_in_pieces_is_not_read_before_it_is_whole(
    target: Target, echo: Echo
) -> None:
    target.send(opened(prompt=5))
    assert not target.service.has_work
    assert tokens_of(target.send(ask(3))) is None
    target.send(Verified((Known(1, 3, (4, 5)),)))
    assert tokens_of(target.send(ask(5))) == (5, 5)


def test_many_sequences_and_tokens_are_read_in_one_call(target: Target, echo: Echo) -> None:
    target.send(*(opened(number) for number in range(8)))
    target.settle()
    echo.scored.clear()
    target.send(Verified(tuple(Known(number, 3, NEWS) for number in range(8))))
    target.settle()
    assert echo.scored == [8]


def test_few_new_tokens_are_read_when_somebody_asks(target: Target, echo: Echo) -> None:
    target.send(opened())
    target.settle()
    target.send(Verified((Known(1, 3, NEWS[1:]),)))
    assert not target.service.has_work
    assert echo.scored == [1]
    assert tokens_of(target.send(ask(18))) == (NEWS[-1],) * 2


def test_what_nobody_asks_for_is_not_read_ahead_until_somebody_does(
    target: Target, echo: Echo
) -> None:
    for number in range(100, 140):
        target.send(opened(number), Close((number,)))
        target.settle()
    echo.scored.clear()
    target.send(opened(1))
    assert not target.service.has_work
    assert echo.scored == []
    assert tokens_of(target.send(ask(3))) == (3, 3)
    target.send(Verified((Known(1, 3, NEWS),)))
    assert echo.scored == [1]  # from now on, of this one
    for number in range(200, 220):
        target.send(opened(number), ask(3, number=number), Close((number,)))
        target.settle()
    echo.scored.clear()
    target.send(opened(2))
    target.settle()
    assert echo.scored == [1]  # others were asked about: this one may be too


def test_questions_of_several_targets_are_one_call_and_come_before_catching_up(
    target: Target, echo: Echo
) -> None:
    other = Target(target.service, b"other")
    target.service.receive(b"other", encode(opened()), 0.0)
    target.service.receive(b"other", encode(ask(3)), 0.0)
    replies = target.send(opened(), opened(2), ask(3))
    assert echo.drafted == [2]
    assert echo.scored == []
    assert len(replies) == 2
    other.settle()
    assert echo.scored == [1]  # what was asked for was read with it


def test_a_question_that_comes_twice_is_drafted_once(target: Target, echo: Echo) -> None:
    replies = target.send(opened(), ask(3), ask(3))
    assert echo.drafted == [1]
    assert replies == [Drafts(9, (Drafted(3, (3, 3), 0, 0, False),))] * 2


def test_outcomes_wait_until_they_are_asked_for_and_come_once(target: Target) -> None:
    target.send(opened())
    target.settle()
    target.send(Verified((Known(1, 3, NEWS),)))
    target.settle()
    (scores,) = target.send(score(19, finished=True))
    assert isinstance(scores, Scores)
    assert [each.base_length for each in scores.outcomes[0]] == [3, 19, 19]
    (again,) = target.send(score(19))
    assert isinstance(again, Scores)
    assert [each.base_length for each in again.outcomes[0]] == [19]


def test_a_drafter_that_fails_gives_no_answers_and_starts_afresh(
    target: Target, echo: Echo
) -> None:
    target.send(opened())
    echo.fails = True
    assert target.send(ask(3)) == [Drafts(9, ())]
    assert target.send(score(3)) == [Scores(9, ((),))]
    assert len(set(echo.forgotten)) == 1
    echo.fails = False
    assert tokens_of(target.send(ask(3))) == (3, 3)


def test_a_drafter_that_is_not_here_offers_nothing_and_keeps_nothing(target: Target) -> None:
    ask_nobody, score_nobody = (
        msgspec.structs.replace(each, drafter="nobody") for each in (ask(3), score(3))
    )
    assert target.send(opened(), ask_nobody) == [Drafts(9, (None,))]
    assert target.send(score_nobody) == [Scores(9, ((),))]
    (sequence,) = target.service._sequences.all()
    assert "nobody" not in {*sequence.num_read, *sequence.outcomes}


def test_drafters_come_and_go_between_two_messages(target: Target, echo: Echo) -> None:
    target.send(opened())
    target.service.work(0.0)
    other = PromptLookupDrafter("lookup", 4, 2, 1)
    target.service.use_drafters([other])
    assert target.service.has_work  # it reads what was verified before
    target.send()
    assert not target.service.has_work
    assert target.send(ask(3)) == [Drafts(9, (None,))]
    scored = list(echo.scored)
    target.service.use_drafters([other, echo])
    target.send()
    assert echo.scored == [*scored, 1]
    assert tokens_of(target.send(ask(3))) == (3, 3)


def test_a_sequence_that_ends_behind_a_question_is_forgotten_after_it(
    target: Target, echo: Echo
) -> None:
    target.send(opened())
    assert tokens_of(target.send(ask(3), Close((1,)))) == (3, 3)
    assert echo.drafted == [1]
    assert len(echo.forgotten) == 1
    assert target.service.num_sequences == 0


def test_another_model_is_refused_by_name(target: Target) -> None:
    target.send(opened())
    other = Open(2, "s2", "t", Identity("other", "weights"), 1, SamplingParams(), (1,))
    (refused,) = target.send(other)
    assert isinstance(refused, Refused)
    assert target.service.num_sequences == 1


def test_garbage_is_counted_and_changes_nothing(target: Target) -> None:
    rng = random.Random(1)
    target.send(opened())
    for size in range(200):
        target.service.receive(CLIENT, rng.randbytes(size), 0.0)
    assert target.service.num_refused_messages == 200
    assert tokens_of(target.send(ask(3))) == (3, 3)


def test_what_is_closed_or_idle_is_forgotten_and_heals(target: Target, echo: Echo) -> None:
    target.send(opened(1), opened(2))
    target.send(Close((1, 77)))
    assert len(echo.forgotten) == target.service.num_sequences == 1
    target.now_s = IDLE_S + 1
    target.send(Hello(1))
    assert target.service.num_sequences == 0
    assert not target.service.has_work
    assert target.send(ask(3, number=2))[0] == NeedFrom(2, 0)
    assert tokens_of(target.send(opened(2), ask(3, number=2))) == (3, 3)


def test_memory_is_bounded_and_the_least_recently_used_go_first(echo: Echo) -> None:
    target = Target(HostService([echo], IDENTITY, max_tokens=10))
    for number in range(3):
        target.send(opened(number))
    target.send(Verified((Known(0, 3, (4,)),)))
    target.send(opened(3))
    assert target.service.num_sequences == 3
    assert target.send(ask(3, number=1))[0] == NeedFrom(1, 0)
    assert tokens_of(target.send(ask(4, number=0))) == (4, 4)


def test_two_targets_may_use_the_same_number(target: Target) -> None:
    other = Target(target.service, b"other")
    target.send(opened(1, (1, 2, 3)))
    other.send(opened(1, (4, 5, 6)))
    assert tokens_of(target.send(ask(3))) == (3, 3)
    assert tokens_of(other.send(ask(3))) == (6, 6)


def test_a_lookup_that_finds_nothing_has_stopped() -> None:
    """Its offer was not seen when it was chosen: what it lacks is refused, like a model's stop."""
    lookup = PromptLookupDrafter("lookup", 4, min_match=1)
    target = Target(HostService([lookup], IDENTITY))
    question = AskDraft(9, "lookup", (DraftPart(Known(1, 3, ()), 2),))
    (answer,) = target.send(opened(1, (1, 2, 3)), question)
    assert answer == Drafts(9, (Drafted(3, (), 0, 0, is_stopped=True),))
    question = AskDraft(9, "lookup", (DraftPart(Known(1, 3, (1,)), 2),))
    (answer,) = target.send(question)
    assert answer == Drafts(9, (Drafted(4, (2, 3), 1, 0, is_stopped=False),))


def test_several_drafters_read_the_same_sequence(echo: Echo) -> None:
    lookup = PromptLookupDrafter("lookup", 4, min_match=1)
    target = Target(HostService([echo, lookup], IDENTITY))
    target.send(opened(1, (7, 8, 7, 8, 7)))
    target.settle()
    (scores,) = target.send(score(5, name="lookup"))
    assert isinstance(scores, Scores)
    assert [(each.base_length, each.num_offered) for each in scores.outcomes[0]] == [(2, 4)]
    asked = AskDraft(2, "lookup", (DraftPart(Known(1, 5, ()), 3),))
    (answer,) = target.send(asked)
    assert isinstance(answer, Drafts)
    assert answer.drafts[0] is not None
    assert answer.drafts[0].tokens == (8, 7, 8)
