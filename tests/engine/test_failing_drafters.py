"""A drafter that lies or raises gets no draft through; it is masked, and tried again later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scripted_drafters import (
    VOCAB,
    Answer,
    Scripted,
    drafting,
    drafts_of,
    each,
    free_or_not,
    honest,
    raising,
    step,
)

from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.drafting import Drafting
from engine.guarded_drafter import GuardedDrafter
from engine.request import SamplingParams
from policies.cost_model import CostModel
from policies.fixed import FixedSelector
from policies.selector import IDLE, PLAIN, Context, Decision

pytestmark = pytest.mark.usefixtures("quiet")
REST_ROUNDS = 1000

LIES: dict[str, Answer] = {
    "raises": raising,
    "none at all": lambda requests: None,
    "too few drafts": lambda requests: honest(requests)[:-1],
    "too many drafts": lambda requests: [*honest(requests), Draft(4, (1,))],
    "too many tokens": each(lambda r: Draft(len(r.tokens), (1,) * (r.draft_length + 1))),
    "an id beyond the vocabulary": each(lambda r: Draft(len(r.tokens), (1, VOCAB))),
    "a negative id": each(lambda r: Draft(len(r.tokens), (1, -1))),
    "a float": each(lambda r: Draft(len(r.tokens), (1.0,))),  # type: ignore[arg-type]
    "a bool": each(lambda r: Draft(len(r.tokens), (True,))),
    "a string": each(lambda r: Draft(len(r.tokens), ("1",))),  # type: ignore[arg-type]
    "a numpy integer": each(lambda r: Draft(len(r.tokens), (np.int64(1),))),  # type: ignore[arg-type]
    "no tuple": each(lambda r: Draft(len(r.tokens), None)),  # type: ignore[arg-type]
    "no streak": each(lambda r: Draft(len(r.tokens), (1,), 0, -1)),
    "no match length": each(lambda r: Draft(len(r.tokens), (1,), None)),  # type: ignore[arg-type]
    "a stop that is no bool": each(lambda r: Draft(len(r.tokens), (1,), is_stopped=1)),  # type: ignore[arg-type]
    "not a draft": each(lambda r: None),
    "stale by one": each(lambda r: Draft(len(r.tokens) - 1, (1,))),
    "ahead by one": each(lambda r: Draft(len(r.tokens) + 1, (1,))),
    "stale and empty": each(lambda r: Draft(0)),
}
every_lie = pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())


@free_or_not
@every_lie
def test_a_lie_becomes_no_draft_and_one_failure(lie: Answer, is_free: bool) -> None:
    made = drafting(Scripted(lie, is_free=is_free))
    assert drafts_of(made, step("a"), step("b")) == []
    assert made.num_failures == {"d": 1}


def test_the_honest_drafts_beside_a_lie_are_kept() -> None:
    def mixed(requests: Sequence[DraftRequest]) -> list[Draft]:
        drafts = honest(requests)
        drafts[1] = Draft(0, (1,))
        return drafts

    made = drafting(Scripted(mixed))
    assert [name for name, _, _ in drafts_of(made, step("a"), step("b"), step("c"))] == ["a", "c"]
    assert made.num_failures == {"d": 1}


@free_or_not
@every_lie
def test_the_breaker_opens_after_three_failures_in_a_row(lie: Answer, is_free: bool) -> None:
    drafter = Scripted(lie, is_free=is_free)
    made = drafting(drafter)
    for _ in range(20):
        made.draft([step()], IDLE)
    assert len(drafter.asked) == 3
    assert made.num_failures == {"d": 3}


def test_a_success_between_failures_keeps_the_breaker_closed() -> None:
    drafter = Scripted(raising)
    made = drafting(drafter)
    for number in range(12):
        drafter.answer = honest if number % 3 == 2 else raising
        made.draft([step()], IDLE)
    assert len(drafter.asked) == 12
    assert made.num_failures == {"d": 8}


def test_a_drafter_that_stopped_at_once_has_answered() -> None:
    drafter = Scripted(raising)
    made = drafting(drafter)
    for number in range(12):
        stopped = each(lambda r: Draft(len(r.tokens), is_stopped=True))
        drafter.answer = stopped if number % 3 == 2 else raising
        made.draft([step()], IDLE)
    assert len(drafter.asked) == 12


def draft_request() -> DraftRequest:
    return DraftRequest("s", "tenant", (1, 2, 3), 3, SamplingParams(), 4)


@every_lie
def test_scores_that_come_do_not_excuse_drafts_that_do_not(lie: Answer) -> None:
    guarded = GuardedDrafter(Scripted(lie), VOCAB)
    for _ in range(3):
        assert not guarded.is_masked
        guarded.draft([draft_request()])
        guarded.score([])
        guarded.forecast([draft_request()])
    assert guarded.state == "resting"


@every_lie
def test_an_empty_draft_between_failures_excuses_nothing(lie: Answer) -> None:
    drafter = Scripted(lie)
    guarded = GuardedDrafter(drafter, VOCAB)
    for _ in range(3):
        assert not guarded.is_masked
        drafter.answer = lambda requests: [Draft(len(r.tokens)) for r in requests]
        guarded.draft([draft_request()])
        drafter.answer = lie
        guarded.draft([draft_request()])
    assert guarded.state == "resting"


def test_drafts_that_come_do_not_excuse_scores_that_do_not() -> None:
    class Unscored(Scripted):
        def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
            raise RuntimeError("broken")

    guarded = GuardedDrafter(Unscored(honest), VOCAB)
    for _ in range(3):
        assert not guarded.is_masked
        guarded.score([])
        guarded.draft([draft_request()])
    assert guarded.state == "resting"


def opened(drafter: Scripted) -> Drafting:
    made = drafting(drafter)
    for _ in range(3):
        made.draft([step()], IDLE)
    drafter.asked.clear()
    return made


def test_after_its_rest_an_open_breaker_lets_one_draft_through() -> None:
    drafter = Scripted(raising)
    made = opened(drafter)
    for _ in range(REST_ROUNDS - 1):
        made.draft([step()], IDLE)
    assert drafter.asked == []
    for _ in range(10):
        made.draft([step()], IDLE)
    assert len(drafter.asked) == 1, "one failure after the rest opens it again"


def test_a_drafter_that_recovered_is_used_again() -> None:
    drafter = Scripted(raising)
    made = opened(drafter)
    drafter.answer = honest
    for _ in range(REST_ROUNDS - 1):
        made.draft([step()], IDLE)
    assert len(drafts_of(made, step())) == 1
    drafter.answer = raising
    for _ in range(5):
        made.draft([step()], IDLE)
    assert len(drafter.asked) == 1 + 3, "the count began anew"


def test_an_open_breaker_masks_its_drafter_from_the_selector() -> None:
    seen: list[Context] = []

    class Watching:
        def choose(self, contexts: Sequence[Context]) -> list[Decision]:
            seen.extend(contexts)
            return [Decision("bad", 4)] * len(contexts)

    made = Drafting([Scripted(raising, "bad"), Scripted(honest, "good")], VOCAB, CostModel())
    made.use_selectors(Watching(), {})
    for _ in range(5):
        made.draft([step()], IDLE)
    assert [set(context.draft_lengths) for context in seen] == [{"bad", "good"}] * 3 + [
        {"good"}
    ] * 2


def test_one_drafters_failure_does_not_touch_another() -> None:
    lookup = Scripted(honest, "lookup", is_free=True)
    made = Drafting([Scripted(raising, "bad", is_free=True), lookup], VOCAB, CostModel())
    made.use_selectors(FixedSelector("lookup", 2), {})
    for _ in range(6):
        assert drafts_of(made, step()) == [("s", "lookup", (1, 2))]
    assert made.num_failures == {"bad": 3, "lookup": 0}


def test_a_drafter_that_breaks_at_the_end_of_a_sequence_is_noted_and_others_still_hear() -> None:
    class Breaking(Scripted):
        def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
            raise RuntimeError("broken")

    breaking, other = Breaking(honest, "bad", is_free=True), Scripted(honest, "good")
    made = Drafting([breaking, other], VOCAB, CostModel())
    made.conclude([], [step("gone").sequence])
    assert made.num_failures == {"bad": 1, "good": 0}
    assert other.forgotten == ["gone"]
    assert breaking.forgotten == ["gone"], "its memory of the sequence is freed all the same"


@pytest.mark.parametrize("chances", [[2.0], [-0.1], [float("nan")], ["1"], [], [1], None])
def test_a_forecast_that_is_no_chance_is_passed_over_and_noted(chances: Any) -> None:
    seen: list[Context] = []

    class Boasting(Scripted):
        def forecast(self, requests: Sequence[DraftRequest]) -> list[float | None]:
            forecasts: list[float | None] = chances
            return forecasts

    class Curious:
        reads_confidences = True

        def choose(self, contexts: Sequence[Context]) -> list[Decision]:
            seen.extend(contexts)
            return [PLAIN] * len(contexts)

    made = Drafting([Boasting(honest)], VOCAB, CostModel())
    made.use_selectors(Curious(), {})
    made.draft([step()], IDLE)
    assert [dict(context.confidences) for context in seen] == [{}]
    assert made.num_failures == {"d": 1}
