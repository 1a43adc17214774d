"""Learners hear what became of their decisions: once, truly, and of nothing that never was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count

import pytest
from tiny_models import run_all, tiny_engine
from tiny_requests import drafter, request

from engine.drafters.drafter import Draft, Drafter, DraftRequest, ScoreRequest
from engine.drafters.drafter import Outcome as Scored
from engine.engine import Engine
from engine.request import GenerationRequest
from policies.selector import Context, Decision, Outcome

FOREVER = GenerationRequest("a", (1, 2, 3), 40, ignore_eos=True)


class Recording:
    """A learner that always decides the same, and keeps what it hears."""

    def __init__(self, arm: str | None, draft_length: int, evaluated: Sequence[str] = ()) -> None:
        self._ids = count()
        self._arm = (arm, draft_length, tuple(evaluated))
        self.contexts: list[Context] = []
        self.heard: list[Outcome] = []
        self.forgotten: list[str] = []

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        self.contexts += contexts
        name, length, evaluated = self._arm
        return [Decision(name, length, 1.0, 3, next(self._ids), evaluated) for _ in contexts]

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        assert outcomes, "nothing to say is not said"
        self.heard += outcomes

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self.forgotten += sequence_ids


class Oracle:
    """Drafts `text` from where the sequence is, and counts how it is asked to score."""

    is_free = False
    max_draft_length = 4

    def __init__(self, text: Sequence[int], num_wrong: int = 0) -> None:
        self.name = "oracle"
        self._text = list(text)
        self._num_wrong = num_wrong
        self.scored_at: list[int] = []
        self.failing: Callable[[], list[Scored]] | None = None

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._draft(each) for each in requests]

    def _draft(self, asked: DraftRequest) -> Draft:
        j = len(asked.tokens)
        tokens = self._text[j : j + asked.draft_length]
        wrong = [(token + 1) % 50 for token in tokens[len(tokens) - self._num_wrong :]]
        return Draft(j, tuple(tokens[: len(tokens) - self._num_wrong] + wrong))

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Scored]]:
        self.scored_at += [len(each.tokens) for each in requests]
        if self.failing is not None:
            return [self.failing() for _ in requests]
        first = requests[0].num_prompt_tokens
        return [[Scored(j, 4, 4) for j in range(first, len(each.tokens) - 4)] for each in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        pass


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="engine.guarded_drafter")


def text_of(asked: GenerationRequest) -> list[int]:
    emissions = run_all(tiny_engine(), [asked])[asked.sequence_id]
    return [*asked.prompt_ids, *(token for each in emissions for token in each.token_ids)]


def run(
    drafters: Sequence[Drafter], learner: Recording, asked: GenerationRequest = FOREVER
) -> Engine:
    engine = tiny_engine(drafters)
    engine.use_selectors(learner, {})
    run_all(engine, [asked])
    return engine


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
