"""Drafters that were not chosen are scored when somebody asks, also after the end of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest
from recording_learner import FOREVER, Oracle, Recording, run, text_of
from tiny_models import run_all, tiny_engine
from tiny_requests import drafter, request

from engine.drafters.drafter import Draft, DraftRequest, ScoreRequest
from engine.drafters.drafter import Outcome as Scored
from engine.engine import Engine
from engine.request import GenerationRequest
from policies.selector import Outcome

pytestmark = pytest.mark.usefixtures("quiet")


def test_a_costly_drafter_is_scored_in_one_call_for_many_positions() -> None:
    learner, oracle = Recording(None, 0, ["oracle"]), Oracle(text_of(FOREVER))
    run([oracle], learner)
    scores = [outcome for outcome in learner.heard if outcome.drafter == "oracle"]
    assert len({outcome.decision_id for outcome in scores}) == len(scores) >= 30
    assert len(oracle.scored_at) <= 38 // 4 + 2


def test_a_free_drafter_is_scored_as_soon_as_the_text_tells() -> None:
    asked = request(1, 0.0, max_tokens=30, ignore_eos=True)
    learner = Recording(None, 0, ["prompt_lookup"])
    engine = tiny_engine([drafter("prompt_lookup")])
    engine.use_selectors(learner, {})
    engine.submit(asked)
    num_heard = []
    while engine.has_work:
        engine.step()
        num_heard.append(sum(o.drafter is not None for o in learner.heard))
    assert num_heard[-1] == len(learner.contexts)
    assert num_heard[len(num_heard) // 2] > 0


def test_a_drafter_that_is_not_asked_for_is_not_scored() -> None:
    oracle = Oracle(text_of(FOREVER))
    run([oracle], Recording(None, 0))
    assert oracle.scored_at == []


def raising() -> list[Scored]:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    "failing",
    [
        raising,
        lambda: [Scored(5, 4, 5)],
        lambda: [Scored(5, 4, -1)],
        lambda: [Scored(5, 4, 1.5)],  # type: ignore[arg-type]
        lambda: [None],
    ],
    ids=["raises", "more than offered", "less than nothing", "a float", "no outcome"],
)
def test_a_wrong_score_is_a_failure_and_not_a_lesson(failing: Callable[[], list[Scored]]) -> None:
    learner, oracle = Recording(None, 0, ["oracle"]), Oracle(text_of(FOREVER))
    oracle.failing = failing
    engine = run([oracle], learner)
    assert all(outcome.drafter is None for outcome in learner.heard)
    assert engine.counters().num_drafter_failures == {"oracle": 3}
    assert len(oracle.scored_at) == 3, "then it is masked"


def test_what_an_unchosen_drafter_would_have_done_is_set_beside_the_choice() -> None:
    """The oracle is evaluated at every round of plain decoding: none of its tokens were drafted."""
    engine = tiny_engine([Oracle(text_of(FOREVER))])
    engine.use_selectors(Recording(None, 0, ["oracle"]), {})
    run_all(engine, [FOREVER])
    found = engine.counters().hindsight["oracle"]
    assert found.num_compared == found.num_evaluations > 0
    assert found.num_accepted > found.num_compared
    assert found.num_accepted_of_chosen == 0
    assert found.seconds > 0


class Elsewhere(Oracle):
    """A follower that tells of a sequence's end as many rounds later as it is told to."""

    is_away = False

    def __init__(self, text: Sequence[int], num_rounds_late: int) -> None:
        super().__init__(text)
        self._num_rounds_late = num_rounds_late
        self.forgotten: list[str] = []

    def follow(self, sequences: Sequence[ScoreRequest]) -> None:
        pass

    def ask(self, requests: Sequence[DraftRequest]) -> None:
        raise AssertionError("it is never chosen")

    def take(self, wait_s: float) -> dict[str, Draft]:
        return {}

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Scored]]:
        if not any(each.finished for each in requests):
            return [[] for _ in requests]
        self._num_rounds_late -= 1
        return super().score(requests) if self._num_rounds_late < 0 else [[] for _ in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self.forgotten += sequence_ids


BESIDE = GenerationRequest("beside", (7, 8, 9), 80, ignore_eos=True)


def after_the_end(oracle: Elsewhere, learner: Recording) -> Engine:
    """One sequence has just ended, and another goes on."""
    engine = tiny_engine([oracle])
    engine.use_selectors(learner, {})
    for each in (FOREVER, BESIDE):
        engine.submit(each)
    while not any(e.sequence_id == "a" and e.finish_reason for e in engine.step()):
        pass
    return engine


def scores_of(learner: Recording) -> list[Outcome]:
    return [outcome for outcome in learner.heard if outcome.drafter is not None]


def test_what_a_drafter_elsewhere_tells_after_the_end_is_heard_before_it_is_forgotten() -> None:
    learner, oracle = Recording(None, 0, ["oracle"]), Elsewhere(text_of(FOREVER), 3)
    engine = after_the_end(oracle, learner)
    for _ in range(2):
        engine.step()
        assert (scores_of(learner), oracle.forgotten, learner.forgotten) == ([], [], [])
    for _ in range(10):
        engine.step()
    assert len(scores_of(learner)) >= 30
    assert oracle.forgotten == learner.forgotten == ["a"]


def test_a_drafter_elsewhere_that_never_tells_is_not_asked_for_ever() -> None:
    learner, oracle = Recording(None, 0, ["oracle"]), Elsewhere(text_of(FOREVER), 1000)
    engine = after_the_end(oracle, learner)
    for _ in range(10):
        engine.step()
    assert scores_of(learner) == []
    assert oracle.forgotten == learner.forgotten == ["a"]


def test_a_name_that_comes_again_is_another_sequence() -> None:
    learner, oracle = Recording(None, 0, ["oracle"]), Elsewhere(text_of(FOREVER), 1000)
    engine = after_the_end(oracle, learner)
    engine.submit(FOREVER)
    engine.step()
    assert oracle.forgotten == learner.forgotten == ["a"]


def test_what_is_cancelled_is_not_waited_for_either() -> None:
    learner, oracle = Recording(None, 0, ["oracle"]), Elsewhere(text_of(FOREVER), 3)
    engine = tiny_engine([oracle])
    engine.use_selectors(learner, {})
    for each in (FOREVER, BESIDE):
        engine.submit(each)
    for _ in range(12):
        engine.step()
    engine.cancel("a")
    assert oracle.scored_at == []
    for _ in range(10):
        engine.step()
    assert scores_of(learner)
    assert "a" in learner.forgotten
