"""Learners hear what became of their decisions: once, truly, and of nothing that never was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from recording_learner import FOREVER, Oracle, Recording, run, text_of
from tiny_models import run_all, tiny_engine
from tiny_requests import drafter, request

from engine.drafters.drafter import Draft, DraftRequest
from engine.request import GenerationRequest
from policies.selector import Outcome


def test_a_chosen_draft_is_told_with_its_decision() -> None:
    learner = Recording("oracle", 3)
    run([Oracle(text_of(FOREVER), num_wrong=1)], learner)
    full, *_ = learner.heard
    assert full == Outcome(0, 3, "oracle", 3, 2)
    assert [outcome.decision_id for outcome in learner.heard] == list(range(len(learner.heard)))


class Hesitant(Oracle):
    """Goes no further than two tokens, whatever it is asked for."""

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        drafts = super().draft(requests)
        return [
            replace(d, tokens=d.tokens[:2], is_stopped=len(d.tokens) > 2 and r.draft_length > 2)
            for d, r in zip(drafts, requests, strict=True)
        ]


@pytest.mark.parametrize(("draft_length", "num_offered"), [(2, 2), (3, 3), (4, 4)])
def test_what_a_drafter_gave_up_counts_as_refused(draft_length: int, num_offered: int) -> None:
    learner = Recording("oracle", draft_length)
    run([Hesitant(text_of(FOREVER))], learner)
    full, *_ = learner.heard
    assert full == Outcome(0, 3, "oracle", num_offered, 2)


def test_a_draft_that_found_no_room_is_not_one_that_stopped() -> None:
    learner = Recording("oracle", 4)
    engine = tiny_engine([Hesitant(text_of(FOREVER))], num_kv_tokens=44, max_num_sequences=1)
    engine.use_selectors(learner, {})
    run_all(engine, [FOREVER])
    last = learner.heard[-1]
    assert last.num_offered == last.accept_length < 4


def test_plain_decoding_is_an_arm_too() -> None:
    learner = Recording(None, 0)
    run([Oracle(text_of(FOREVER))], learner)
    assert set(learner.heard) == {Outcome(i, 3, None, 0, 0) for i in range(38)}


def test_a_draft_that_never_came_says_nothing() -> None:
    learner = Recording("oracle", 3)
    run([Oracle([])], learner)
    assert learner.contexts
    assert learner.heard == []


class Reticent(Oracle):
    """Stops before the first token."""

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(len(r.tokens), is_stopped=True) for r in requests]


def test_a_drafter_that_stopped_at_once_was_refused() -> None:
    learner = Recording("oracle", 3)
    run([Reticent([])], learner)
    assert learner.heard[0] == Outcome(0, 3, "oracle", 3, 0)
    assert len(learner.heard) == len(learner.contexts)


def test_a_draft_cut_by_the_end_of_the_text_says_at_least() -> None:
    end = text_of(FOREVER)[9]
    asked = GenerationRequest("a", (1, 2, 3), 40, stop_token_ids=(end,), ignore_eos=True)
    learner = Recording("oracle", 4)
    run([Oracle(text_of(FOREVER))], learner, asked)
    *_, last = learner.heard
    assert last.is_cut
    assert last.accept_length < last.num_offered
    assert not any(outcome.is_cut for outcome in learner.heard[:-1])


def test_what_is_replaced_in_mid_sequence_hears_of_its_own_decisions_only() -> None:
    first, second = Recording(None, 0, ["suffix"]), Recording("suffix", 4)
    engine = tiny_engine([drafter("suffix")])
    engine.use_selectors(first, {})
    engine.submit(request(2, 0.0, max_tokens=40, ignore_eos=True))
    for _ in range(10):
        engine.step()
    engine.use_selectors(second, {})
    while engine.has_work:
        engine.step()
    assert max(outcome.decision_id for outcome in first.heard) < len(first.contexts)
    assert max(outcome.decision_id for outcome in second.heard) < len(second.contexts)
    assert second.forgotten == ["2"]


def test_a_cancelled_sequence_is_forgotten() -> None:
    learner = Recording("oracle", 2)
    engine = tiny_engine([Oracle(text_of(FOREVER))])
    engine.use_selectors(learner, {})
    engine.submit(FOREVER)
    for _ in range(5):
        engine.step()
    engine.cancel("a")
    assert learner.forgotten == ["a"]


def test_contexts_carry_the_load_of_the_step() -> None:
    learner = Recording(None, 0)
    engine = tiny_engine([drafter("suffix")])
    engine.use_selectors(learner, {})
    run_all(engine, [request(i, 0.0, max_tokens=20, ignore_eos=True) for i in range(3)])
    load = max((c.load for c in learner.contexts), key=lambda load: load.num_sequences)
    assert load.num_sequences == 3
    assert load.num_tokens >= 3
    assert load.num_kv_entries > 3


def test_a_streak_grows_while_a_costly_drafter_is_right_and_ends_with_an_error() -> None:
    right, wrong = Recording("oracle", 2), Recording("oracle", 2)
    run([Oracle(text_of(FOREVER))], right)
    run([Oracle(text_of(FOREVER), num_wrong=1)], wrong)
    assert [context.streaks.get("oracle") for context in right.contexts[:4]] == [None, 2, 4, 6]
    assert [context.streaks.get("oracle") for context in wrong.contexts[:4]] == [None, 0, 0, 0]
