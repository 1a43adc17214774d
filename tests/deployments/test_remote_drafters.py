"""Drafters on hosts say what they would say here; what takes long there delays nobody."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

import pytest
from hosted_engines import REQUESTS, assert_exact, draft_request, engine_with, lookup, score_request
from hosting import PATIENT_S, Hosted, OverZmq, Settled
from tiny_models import tiny_model_drafter

from engine.drafters.drafter import Draft, Drafter, DraftRequest, Follower, Outcome, ScoreRequest
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.request import SamplingParams


@pytest.mark.parametrize("name", ["lookup", "model"])
def test_a_host_accepts_exactly_what_the_drafter_here_would(name: str) -> None:
    makers: dict[str, Callable[[], Drafter]] = {
        "lookup": lookup,
        "model": partial(tiny_model_drafter, "model", 8),
    }
    here, there = makers[name](), makers[name]()
    engine = engine_with(here)
    expected = [assert_exact(engine, [each]) for each in REQUESTS[3:]]
    assert sum(expected) > 0
    with Hosted(there) as (remote,):
        engine = engine_with(remote)
        assert [assert_exact(engine, [each]) for each in REQUESTS[3:]] == expected
        assert assert_exact(engine) > 0  # together they may take turns, and draft less often
        assert engine.counters().num_drafter_failures == {name: 0}


class Unscored(PromptLookupDrafter):
    """Scores when it is let."""

    def __init__(self) -> None:
        super().__init__("lookup", 8, 6, 1)
        self.may_score = threading.Event()

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        assert self.may_score.wait(PATIENT_S)
        return super().score(requests)


def test_the_score_of_a_finished_sequence_is_not_waited_for_and_comes_later() -> None:
    drafter, tokens = Unscored(), [1, 2, 3, 1, 2, 3]
    with Hosted(drafter) as (remote,):
        finished = score_request(tokens, finished=True)
        assert remote.score([finished]) == [[]]
        assert remote.score([finished]) == [[]]
        drafter.may_score.set()
        (question, _), *others = remote._scoring["a"]
        assert not others  # the end is asked about once
        while not question.is_over:
            remote._client.wait_for([question], PATIENT_S)
        (outcomes,) = remote.score([finished])
        assert [outcome.base_length for outcome in outcomes] == list(range(1, 6))
        assert remote.score([finished]) == [[]]
        remote.forget(["a"])
        assert not remote._scoring
        assert not remote._finished


def test_a_late_score_ends_no_other_question_and_leaves_no_debt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.host_client.SCORE_TIMEOUT_S", 0.0)
    drafter, tokens = Unscored(), [1, 2, 3, 1, 2, 3]
    with Hosted(drafter, lookup("other")) as (remote, other):
        assert remote.score([score_request(tokens)]) == [[]]
        ((question, _),) = remote._scoring["a"]
        other.ask([draft_request(tokens)])
        remote._client.read()
        assert question.is_over
        assert not other.is_away
        drafter.may_score.set()
        while not (drafts := other.take(PATIENT_S)):
            pass
        assert drafts["a"].tokens == (1, 2, 3, 1)


def test_a_long_prompt_on_a_host_delays_nobody_elses_draft() -> None:
    """The model reads it in parts, between which others are answered."""
    rng, model = random.Random(5), tiny_model_drafter("model", 4, max_length=5000, num_blocks=2000)
    tokens = [rng.randrange(3, 40) for _ in range(4000)]
    expected = tiny_model_drafter("model", 4, max_length=5000, num_blocks=2000).draft(
        [draft_request(tokens)]
    )
    with Hosted(model) as (remote,):
        remote.follow([score_request(tokens, name="a")])
        assert remote.draft([draft_request(tokens)]) == [Draft(4000)]  # not read yet
        assert remote.draft([draft_request(tokens[:20], name="b")])[0].tokens
        assert remote.draft([draft_request(tokens)]) == [Draft(4000)]
        while not (drafts := remote.draft([draft_request(tokens)]))[0].tokens:
            pass
        assert drafts == expected


def test_what_was_sent_ahead_is_read_before_it_is_asked_for() -> None:
    drafter = lookup()
    with Hosted(drafter, kind=Settled) as (remote,):
        tokens = [1, 2]
        for token in (3, 1, 2, 3, 1, 2, 3):
            tokens.append(token)
            remote.follow([score_request(tokens)])
        before = remote._client.num_bytes
        (draft,) = remote.draft([draft_request(tokens)])
        assert draft.tokens == (1, 2, 3, 1)
        assert remote._client.num_bytes - before < 60
        (outcomes,) = remote.score([score_request(tokens, finished=True)])
        assert [outcome.base_length for outcome in outcomes] == list(range(1, 9))


def test_a_model_on_a_host_drafts_and_scores_as_the_one_here() -> None:
    rng, make = random.Random(3), partial(tiny_model_drafter, "model", 4)
    with closing(OverZmq(make)) as over_zmq:
        here, there = make(), over_zmq()
        for number in range(3):
            tokens = [rng.randrange(3, 40) for _ in range(rng.randint(1, 20))]
            for end in range(1, 40, rng.randint(1, 5)):
                tokens += [rng.randrange(3, 40) for _ in range(end - len(tokens))]
                asked = [draft_request(tokens[:end], rng.randint(1, 6), str(number))]
                assert there.draft(asked) == here.draft(asked)
                scored = [score_request(tokens[:end], name=str(number))]
                assert there.score(scored) == here.score(scored)
            for drafter in (here, there):
                drafter.forget([str(number)])


def test_a_drafter_unchosen_for_long_drafts_as_one_always_chosen() -> None:
    """So it accepts as well: after 500 tokens that it only read, its next drafts are the same."""
    tokens = [(i * i) % 13 for i in range(560)]
    model = partial(tiny_model_drafter, "model", 4, max_length=600)
    with Hosted(model(), lookup()) as (unchosen, _), Hosted(model()) as (always,):
        for end in range(1, 501, 9):
            unchosen.follow([score_request(tokens[:end])])
            always.draft([draft_request(tokens[:end])])
        for end in range(502, 560, 5):
            asked = [draft_request(tokens[:end])]
            assert unchosen.draft(asked) == always.draft(asked)


def test_a_long_sequence_goes_over_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.host_client.MAX_MESSAGE_TOKENS", 100)
    tokens = [i % 7 for i in range(5000)]
    request = DraftRequest("a", "tenant", tokens, 3000, SamplingParams(temperature=0.0), 4)
    with Hosted(lookup()) as (remote,):
        assert remote.draft([request]) == lookup().draft([request])


def test_a_remote_drafter_follows_and_one_here_does_not() -> None:
    with Hosted(lookup()) as (remote,):
        assert isinstance(remote, Follower)
    assert not isinstance(lookup(), Follower)
