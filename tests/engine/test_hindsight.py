"""Hindsight is exact: scores at every position predict each fixed arm's run, round for round."""

from __future__ import annotations

import pytest
from hindsight import Watching
from tiny_models import run_all, tiny_engine
from tiny_requests import DRAFTERS, drafter, request

from engine.drafters.drafter import Drafter
from engine.request import GenerationRequest
from policies.fixed import FixedSelector

LENGTHS = (1, 2, 4)
LONGEST = 4
NUM_TOKENS = 60


def all_drafters() -> list[Drafter]:
    return [drafter(name, LONGEST) for name in DRAFTERS]


def watched(asked: GenerationRequest) -> Watching:
    engine = tiny_engine(all_drafters())
    watching = Watching([asked], DRAFTERS)
    engine.use_selectors(watching, {})
    run_all(engine, [asked])
    return watching


def real_rounds(asked: GenerationRequest, name: str, draft_length: int) -> list[int]:
    """Tokens that each round emits when this arm is really run."""
    engine = tiny_engine(all_drafters())
    engine.use_selectors(FixedSelector(name, draft_length), {})
    return [len(emission.token_ids) for emission in run_all(engine, [asked])[asked.sequence_id]]


@pytest.mark.parametrize("ignore_eos", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("index", range(3))
def test_scores_predict_every_fixed_arm_round_for_round(
    index: int, temperature: float, ignore_eos: bool
) -> None:
    asked = request(index, temperature, max_tokens=NUM_TOKENS, ignore_eos=ignore_eos)
    num_tokens = sum(real_rounds(asked, "suffix", 0))
    watching = watched(asked)
    num_accepted = 0
    for name in DRAFTERS:
        for draft_length in LENGTHS:
            predicted = watching.predicted_rounds(asked, name, draft_length, num_tokens)
            assert predicted == real_rounds(asked, name, draft_length), (name, draft_length)
            num_accepted += num_tokens - len(predicted)
    assert num_accepted > 0
    assert watching.forgotten == [asked.sequence_id]


@pytest.mark.parametrize("index", range(3))
def test_every_position_is_scored_and_the_end_cuts_what_reaches_it(index: int) -> None:
    asked = request(index, 0.9, max_tokens=NUM_TOKENS)
    first = len(asked.prompt_ids)
    end = first + sum(real_rounds(asked, "suffix", 0))
    watching = watched(asked)
    for name in DRAFTERS:
        known = watching.outcomes[asked.sequence_id, name]
        assert set(known) == set(range(first + 1, min(end, first + NUM_TOKENS - 1)))
        for position, outcome in known.items():
            assert position + outcome.accept_length <= end
            assert not outcome.is_cut or position + outcome.accept_length == end
