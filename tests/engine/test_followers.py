"""Drafters elsewhere hear of what they may be asked for; nobody waits for one that is away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from scripted_drafters import Answer, Scripted, drafting, drafts_of, honest, raising, step

from engine.drafters.drafter import Draft, DraftRequest, ScoreRequest
from engine.scheduler import Step

pytestmark = pytest.mark.usefixtures("quiet")


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
