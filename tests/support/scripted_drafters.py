"""Drafters that answer what they are told, and the one round of drafts that they are asked in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from scheduler_rounds import NoText

from engine.answer_text import AnswerText
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.drafting import Drafting
from engine.request import GenerationRequest, SamplingParams, SpeculationOptions
from engine.scheduler import Step
from engine.sequence import Sequence as LiveSequence
from policies.cost_model import CostModel
from policies.fixed import FixedSelector
from policies.selector import IDLE

VOCAB = 50
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


free_or_not = pytest.mark.parametrize("is_free", [True, False])


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
