"""Drafts are believed only when checked; a drafter that fails is masked, and tried again later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from engine.answer_text import AnswerText
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.drafting import Drafting
from engine.guarded_drafter import GuardedDrafter
from engine.request import GenerationRequest, SamplingParams, SpeculationOptions
from engine.scheduler import Step
from engine.sequence import Sequence as LiveSequence
from policies.cost_model import CostModel
from policies.fixed import FixedSelector
from policies.selector import IDLE, PLAIN, Context, Decision

VOCAB = 50
REST_ROUNDS = 1000
Answer = Callable[[Sequence[DraftRequest]], Any]


class Scripted:
    """A drafter that answers whatever `answer` says."""

    def __init__(
        self, answer: Answer, name: str = "d", is_free: bool = False, max_draft_length: int = 8
    ) -> None:
        self.name, self.is_free, self.max_draft_length = name, is_free, max_draft_length
        self.answer = answer
        self.asked: list[list[DraftRequest]] = []
        self.scored: list[ScoreRequest] = []
        self.forgotten: list[str] = []

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        self.asked.append(list(requests))
        drafts: list[Draft] = self.answer(requests)
        return drafts

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        self.scored += requests
        return [[] for _ in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self.forgotten += sequence_ids


def honest(requests: Sequence[DraftRequest]) -> list[Draft]:
    return [Draft(len(r.tokens), tuple(range(1, r.draft_length + 1)), 3) for r in requests]


def raising(requests: Sequence[DraftRequest]) -> list[Draft]:
    raise RuntimeError("broken")


def each(make: Callable[[DraftRequest], Any]) -> Answer:
    return lambda requests: [make(request) for request in requests]


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
free_or_not = pytest.mark.parametrize("is_free", [True, False])


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="engine.guarded_drafter")


def step(
    name: str = "s", max_tokens: int = 100, num_prompt_tokens: int = 3, **options: Any
) -> Step:
    request = GenerationRequest(
        name,
        tuple(range(num_prompt_tokens)),
        max_tokens,
        SamplingParams(),
        speculation=SpeculationOptions(**options),
    )

    class NoText:
        def push(self, token_id: int) -> str:
            return ""

        def flush(self) -> str:
            return ""

    sequence = LiveSequence(request, AnswerText(NoText(), ()), (), 1000)
    sequence.append(9)
    sequence.num_computed = len(sequence.tokens) - 1
    return Step(sequence, 1)


def drafting(*drafters: Scripted, draft_length: int = 4) -> Drafting:
    made = Drafting(drafters, VOCAB, CostModel())
    made.use_selectors(FixedSelector(drafters[0].name, draft_length), {})
    return made


def drafts_of(made: Drafting, *steps: Step) -> list[tuple[str, str | None, tuple[int, ...]]]:
    drafts = made.draft(steps, IDLE)
    return [(step.sequence.id, step.decision.drafter, tokens) for step, tokens in drafts]


@free_or_not
def test_an_honest_draft_is_passed_on(is_free: bool) -> None:
    made = drafting(Scripted(honest, is_free=is_free))
    assert drafts_of(made, step("a"), step("b")) == [
        ("a", "d", (1, 2, 3, 4)),
        ("b", "d", (1, 2, 3, 4)),
    ]
    assert made.num_failures == {"d": 0}


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


def test_an_empty_draft_is_no_failure() -> None:
    made = drafting(Scripted(each(lambda r: Draft(len(r.tokens)))))
    for _ in range(5):
        assert drafts_of(made, step()) == []
    assert made.num_failures == {"d": 0}


@pytest.mark.parametrize("is_stopped", [True, False])
def test_the_time_of_a_draft_counts_if_it_was_made(is_stopped: bool) -> None:
    costs = CostModel()
    made = Drafting(
        [Scripted(each(lambda r: Draft(len(r.tokens), is_stopped=is_stopped)))], VOCAB, costs
    )
    made.use_selectors(FixedSelector("d", 4), {})
    for _ in range(20):
        assert drafts_of(made, step()) == []
    assert (costs.draft_seconds("d", np.array([4.0]), 1)[0] > 0.0) == is_stopped


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


def test_no_more_is_asked_than_can_be_used() -> None:
    drafter = Scripted(honest, max_draft_length=6)
    made = drafting(drafter, draft_length=100)
    made.draft([
        step("plenty"),
        step("ends soon", max_tokens=4),  # one is said: two may be accepted, then the bonus token
        step("capped", max_draft_length=1),
        step("last token", max_tokens=2),
        step("forbidden", max_draft_length=0),
        step("other drafter", drafters=("else",)),
        step("no drafter", drafters=()),
    ], IDLE)  # fmt: skip
    (requests,) = drafter.asked
    assert [(r.sequence_id, r.draft_length) for r in requests] == [
        ("plenty", 6),
        ("ends soon", 2),
        ("capped", 1),
    ]


def test_a_drafter_is_told_the_verified_tokens_and_the_requests_parameters() -> None:
    drafter = Scripted(honest)
    made = drafting(drafter)
    asked = step(num_prompt_tokens=5)
    made.draft([asked], IDLE)
    ((request,),) = drafter.asked
    assert list(request.tokens) == [0, 1, 2, 3, 4, 9]
    assert (request.num_prompt_tokens, request.tenant) == (5, "default")
    assert request.sampling is asked.sequence.request.sampling


def test_a_sequence_that_prefills_gets_no_draft() -> None:
    made = drafting(Scripted(honest))
    chunk, last_chunk = step("chunk"), step("last chunk")
    for prefilling in (chunk, last_chunk):
        prefilling.sequence.num_computed = 1
    last_chunk.num_new = 3
    assert drafts_of(made, chunk, last_chunk) == []


def test_a_free_offer_is_cut_to_the_decision_and_asked_for_once() -> None:
    drafter = Scripted(honest, is_free=True)
    made = drafting(drafter, draft_length=2)
    assert drafts_of(made, step()) == [("s", "d", (1, 2))]
    assert len(drafter.asked) == 1


@pytest.mark.parametrize(
    "decision", [Decision("unknown", 4), Decision("d", -3), Decision("d", 0), Decision(None, 4)]
)
@free_or_not
def test_an_impossible_decision_is_plain_decoding(decision: Decision, is_free: bool) -> None:
    class Confused:
        def choose(self, contexts: Sequence[Context]) -> list[Decision]:
            return [decision] * len(contexts)

    made = Drafting([Scripted(honest, is_free=is_free)], VOCAB, CostModel())
    made.use_selectors(Confused(), {})
    assert drafts_of(made, step()) == []


def test_without_a_selector_nothing_is_drafted() -> None:
    drafter = Scripted(honest)
    assert drafts_of(Drafting([drafter], VOCAB, CostModel()), step()) == []
    assert drafter.asked == []


def test_a_request_gets_the_selector_it_names() -> None:
    made = Drafting([Scripted(honest)], VOCAB, CostModel())
    made.use_selectors(FixedSelector("d", 2), {"long": FixedSelector("d", 5)})
    drafts = drafts_of(made, step("a"), step("b", selector="long"), step("c", selector="no such"))
    assert [(name, len(tokens)) for name, _, tokens in sorted(drafts)] == [
        ("a", 2),
        ("b", 5),
        ("c", 2),
    ]


def test_the_context_tells_offers_and_matches() -> None:
    seen: list[Context] = []

    class Watching:
        def choose(self, contexts: Sequence[Context]) -> list[Decision]:
            seen.extend(contexts)
            return [PLAIN] * len(contexts)

    def short(requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(len(r.tokens), (1, 2), 7) for r in requests]

    def silent(requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(len(r.tokens)) for r in requests]

    made = Drafting(
        [
            Scripted(short, "lookup", is_free=True),
            Scripted(silent, "suffix", is_free=True),
            Scripted(honest, "model", max_draft_length=6),
        ],
        VOCAB,
        CostModel(),
    )
    made.use_selectors(Watching(), {})
    made.draft([step()], IDLE)
    assert dict(seen[0].draft_lengths) == {"lookup": 2, "model": 6}
    assert dict(seen[0].match_lengths) == {"lookup": 7, "suffix": 0}


def test_the_end_of_a_sequence_is_scored_by_free_drafters_and_forgotten_by_all() -> None:
    free, costly = Scripted(honest, "free", is_free=True), Scripted(honest, "costly")
    made = Drafting([free, costly], VOCAB, CostModel())
    made.conclude([], [step("gone").sequence])
    assert [(r.sequence_id, r.finished, list(r.tokens)) for r in free.scored] == [
        ("gone", True, [0, 1, 2, 9])
    ]
    assert costly.scored == []
    assert (free.forgotten, costly.forgotten) == (["gone"], ["gone"])


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


class Distant(Scripted):
    """A drafter elsewhere, as fast as one here; notes how much it heard of, round by round."""

    def __init__(self, answer: Answer, name: str = "d") -> None:
        super().__init__(answer, name)
        self.is_away = False
        self.heard: list[dict[str, int]] = []
        self._drafts: dict[str, Draft] = {}

    def follow(self, sequences: Sequence[ScoreRequest]) -> None:
        self.heard.append({each.sequence_id: len(each.tokens) for each in sequences})
        if self.answer is raising:
            raise RuntimeError("broken")

    def ask(self, requests: Sequence[DraftRequest]) -> None:
        drafts = self.draft(requests)
        self._drafts |= {r.sequence_id: d for r, d in zip(requests, drafts, strict=True)}

    def take(self, wait_s: float) -> dict[str, Draft]:
        drafts, self._drafts = self._drafts, {}
        return drafts


def test_a_drafter_elsewhere_hears_of_all_that_may_use_it_before_it_is_asked() -> None:
    chosen, unchosen = Distant(honest), Distant(honest, "other")
    made = drafting(chosen, unchosen)
    prefilling = Step(step("p").sequence, 1)
    prefilling.sequence.num_computed = 0
    others = [step("n", drafters=()), step("z", max_draft_length=0), step("o", drafters=("other",))]
    drafts_of(made, step("a"), prefilling, *others)
    assert chosen.heard == [{"a": 4, "p": 4}]
    assert unchosen.heard == [{"a": 4, "p": 4, "o": 4}]
    made.use_selectors(None, {})
    drafts_of(made, step("a"))
    assert len(chosen.heard) == 1


def test_a_drafter_that_is_away_is_not_asked_and_has_not_failed() -> None:
    drafter = Distant(honest)
    made = drafting(drafter)
    drafter.is_away = True
    assert drafts_of(made, step("a")) == []
    assert (drafter.asked, made.num_failures) == ([], {"d": 0})
    assert len(drafter.heard) == 1  # or it would never learn that it is back
    drafter.is_away = False
    assert drafts_of(made, step("a"))


def test_a_disabled_drafter_is_neither_asked_nor_told_until_it_is_enabled_again() -> None:
    far, near = Distant(honest), Scripted(honest, "near", is_free=True)
    made = drafting(far, near)
    made.disable(["d", "near"])
    assert drafts_of(made, step("a")) == []
    assert made.states == {"d": "disabled", "near": "disabled"}
    assert (far.heard, far.asked, near.asked, made.num_failures["d"]) == ([], [], [], 0)
    made.disable(["near"])
    assert len(drafts_of(made, step("a"))) == 1
    assert made.states == {"d": "ready", "near": "disabled"}
    far.is_away = True
    assert made.states["d"] == "away"


def test_a_drafter_that_cannot_follow_fails_and_no_round_does() -> None:
    made = drafting(Distant(raising))
    assert drafts_of(made, step("a")) == []
    assert made.num_failures == {"d": 2}


def test_what_has_ended_is_forgotten_once_every_drafter_was_scored() -> None:
    order: list[tuple[str, str]] = []

    class Noting(Scripted):
        def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
            order.append(("score", self.name))
            return [[] for _ in requests]

        def forget(self, sequence_ids: Iterable[str]) -> None:
            order.append(("forget", self.name))

    made = drafting(Noting(honest, "a", is_free=True), Noting(honest, "b", is_free=True))
    ended = step("s")
    drafts_of(made, ended)
    made.conclude([], [ended.sequence])
    assert order == [("score", "a"), ("score", "b"), ("forget", "a"), ("forget", "b")]
