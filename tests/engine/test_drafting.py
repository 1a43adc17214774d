"""What a round asks drafters for, and which of their drafts it passes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from scripted_drafters import VOCAB, Scripted, drafting, drafts_of, each, free_or_not, honest, step

from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.drafting import Drafting
from policies.cost_model import CostModel
from policies.fixed import FixedSelector
from policies.selector import IDLE, PLAIN, Context, Decision


@free_or_not
def test_an_honest_draft_is_passed_on(is_free: bool) -> None:
    made = drafting(Scripted(honest, is_free=is_free))
    assert drafts_of(made, step("a"), step("b")) == [
        ("a", "d", (1, 2, 3, 4)),
        ("b", "d", (1, 2, 3, 4)),
    ]
    assert made.num_failures == {"d": 0}


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
