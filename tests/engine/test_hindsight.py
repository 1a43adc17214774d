"""Hindsight is exact: scores at every position predict each fixed arm's run, round for round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import pytest
from tiny_models import run_all, tiny_engine
from tiny_requests import DRAFTERS, drafter, request

from engine.drafters.drafter import Drafter
from engine.request import GenerationRequest
from policies.fixed import FixedSelector
from policies.selector import Context, Decision, Outcome

LENGTHS = (1, 2, 4)
LONGEST = 4


class Watching:
    """Decodes plainly and has every drafter scored at every position."""

    def __init__(self, num_prompt_tokens: int) -> None:
        self._ids = count()
        self._first = num_prompt_tokens
        self.positions: dict[int, int] = {}
        self.outcomes: dict[str | None, dict[int, Outcome]] = {}
        self.forgotten: list[str] = []

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        return [self._decide(context) for context in contexts]

    def _decide(self, context: Context) -> Decision:
        number = next(self._ids)
        self.positions[number] = self._first + 1 + number  # the prefill gave the first token
        return Decision(id=number, table_version=7, evaluated=DRAFTERS)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            assert outcome.table_version == 7
            position = self.positions[outcome.decision_id]
            known = self.outcomes.setdefault(outcome.drafter, {})
            assert position not in known, "each outcome is told once"
            known[position] = outcome

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self.forgotten += sequence_ids


def all_drafters() -> list[Drafter]:
    return [drafter(name, LONGEST) for name in DRAFTERS]


def watched(asked: GenerationRequest) -> Watching:
    engine = tiny_engine(all_drafters())
    watching = Watching(len(asked.prompt_ids))
    engine.use_selectors(watching, {})
    run_all(engine, [asked])
    return watching


def real_rounds(asked: GenerationRequest, name: str, draft_length: int) -> list[int]:
    """Tokens that each round emits when this arm is really run."""
    engine = tiny_engine(all_drafters())
    engine.use_selectors(FixedSelector(name, draft_length), {})
    return [len(emission.token_ids) for emission in run_all(engine, [asked])[asked.sequence_id]]


def predicted_rounds(
    outcomes: Mapping[int, Outcome], draft_length: int, first: int, end: int
) -> list[int]:
    """What a run of the arm emits by round, from outcomes at the positions that it passes."""
    rounds, position = [1], first + 1
    while position < end:
        accepted = 0
        if position in outcomes:  # else no draft fits before the end
            useful = min(draft_length, end - position - 1)
            accepted = min(outcomes[position].accept_length, useful)
        rounds.append(accepted + 1)
        position += rounds[-1]
    return rounds


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("index", range(3))
def test_scores_predict_every_fixed_arm_round_for_round(index: int, temperature: float) -> None:
    options: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True}
    asked = request(index, temperature, **options)
    first, end = len(asked.prompt_ids), len(asked.prompt_ids) + 60
    watching = watched(asked)
    num_accepted = 0
    for name in DRAFTERS:
        for draft_length in LENGTHS:
            predicted = predicted_rounds(watching.outcomes[name], draft_length, first, end)
            assert predicted == real_rounds(asked, name, draft_length), (name, draft_length)
            num_accepted += 60 - len(predicted)
    assert num_accepted > 0
    assert watching.forgotten == [asked.sequence_id]


@pytest.mark.parametrize("index", range(3))
def test_scores_are_those_of_the_text_when_it_ends_early(index: int) -> None:
    asked = request(index, 0.9, max_tokens=60)
    first = len(asked.prompt_ids)
    end = first + sum(real_rounds(asked, "suffix", 0))
    watching = watched(asked)
    for name in DRAFTERS:
        known = watching.outcomes[name]
        assert set(known) == set(range(first + 1, min(end, first + 59)))
        for position, outcome in known.items():
            assert position + outcome.accept_length <= end
            assert not outcome.is_cut or position + outcome.accept_length == end
