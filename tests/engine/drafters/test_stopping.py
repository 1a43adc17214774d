"""A drafter's own stop, and what it says of itself beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from tiny_models import (
    VOCAB,
    FedHead,
    past_of,
    run_all,
    tiny_engine,
    tiny_head_drafter,
    tiny_model_drafter,
)
from tiny_requests import request

from engine.drafters.drafter import Drafter, DraftRequest, Forecaster
from engine.drafters.head import HeadDrafter
from engine.drafters.model import ModelDrafter
from engine.drafters.stopping import (
    AcceptanceEvidence,
    AcceptanceHead,
    Stopping,
    TopProbabilityEvidence,
)
from engine.reduced_vocabulary import ReducedVocabulary
from engine.request import SamplingParams
from engine.runner import Logits
from policies.calibration import Stated, TopProbability
from policies.fixed import FixedSelector
from policies.selector import PLAIN, Context, Decision

TOKENS = [5, 9, 9, 14, 3, 50, 31, 8, 8, 21, 5, 17]


Maker = Callable[..., HeadDrafter | ModelDrafter]


def stopping(threshold: float, longest: int = 8) -> Stopping:
    return Stopping(TopProbabilityEvidence(), Stated(), threshold, longest)


def asked(length: int = 8, name: str = "a") -> DraftRequest:
    sampling = SamplingParams(temperature=0.8, seed=5)
    return DraftRequest(name, "t", TOKENS, 4, sampling, length, past_of(TOKENS))


@pytest.mark.parametrize("make", [tiny_model_drafter, tiny_head_drafter])
def test_a_wary_drafter_drafts_the_beginning_of_what_a_bold_one_drafts(make: Maker) -> None:
    lengths = []
    for threshold in (0.999999, 0.9, 0.6, 0.3, 0.01):
        made = make("d", 8, stopping=stopping(threshold))
        (draft,) = made.draft([asked()])
        (whole,) = make("d", 8).draft([asked()])
        assert draft.tokens == whole.tokens[: len(draft.tokens)]
        assert draft.is_stopped == (len(draft.tokens) < 8)
        lengths.append(len(draft.tokens))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1] == 1


@pytest.mark.parametrize("make", [tiny_model_drafter, tiny_head_drafter])
def test_a_forecast_is_the_chance_of_the_first_token_and_changes_no_draft(make: Maker) -> None:
    made = make("d", 4, stopping=stopping(0.5, 4))
    assert isinstance(made, Forecaster)
    first = made.forecast([asked(), asked(name="b")])
    assert first[0] == first[1] == made.forecast([asked()])[0]
    assert first[0] is not None
    assert 0 < first[0] < 1
    fresh = make("d", 4, stopping=stopping(0.5, 4))
    assert made.draft([asked()]) == fresh.draft([asked()])
    silent = make("d", 4)
    assert silent.forecast([asked()]) == [None]


def test_the_rule_looks_at_no_token_behind_the_one_it_judges() -> None:
    made = stopping(0.5, 4)
    assert made.stop_in([0.9, 0.4, 0.9]) == 2
    assert made.stop_in([0.9, 0.8]) is None
    assert made.stop_in([0.9] * 3 + [0.01]) is None, "the longest draft ends by itself"
    assert made.goes_on([[0.9, 0.4], [0.9, 0.9]]) == [False, True]


def test_an_acceptance_head_reads_the_state_and_the_drawn_token() -> None:
    torch.manual_seed(0)
    head = AcceptanceHead(16, 2)
    states = torch.randn(3, 16)
    logits = Logits(torch.randn(3, 4), states, ReducedVocabulary([2, 5, 7, 9], 12))
    one, other = (AcceptanceEvidence(head).of(logits, tokens) for tokens in ([2, 5, 9], [2, 7, 9]))
    assert one[0] == other[0]
    assert one[1] != other[1]
    assert all(0 < value < 1 for value in one)


def test_evidence_of_reduced_logits_is_over_the_ids_that_there_are() -> None:
    rows = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    logits = Logits(rows, None, ReducedVocabulary([4, 9], 12))
    expected = rows.softmax(-1)
    torch.testing.assert_close(logits.top_probabilities(), expected.amax(-1))
    torch.testing.assert_close(logits.log_probs([4, 9]).exp(), expected[[0, 1], [0, 1]])
    assert [logits.greedy(0), logits.greedy(1)] == [9, 4]
    np.testing.assert_array_equal(logits.row(0), rows[0])


def test_counts_of_another_size_are_no_calibration() -> None:
    assert TopProbability.of([4] * 15, [2] * 15).num_tested.sum() == 60
    for tested, accepted in (([4], [2]), ([4] * 15, [2] * 14), ([4] * 15, [5] * 15)):
        with pytest.raises(ValueError, match="a calibration has 15 counts"):
            TopProbability.of(tested, accepted)


class _Curious:
    """Asks for confidences, and keeps what it sees."""

    def __init__(self, reads_confidences: bool) -> None:
        self.reads_confidences = reads_confidences
        self.seen: list[Context] = []

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        self.seen += contexts
        return [PLAIN] * len(contexts)


@pytest.mark.parametrize("reads_confidences", [True, False])
def test_a_selector_that_asks_is_told_how_sure_drafters_are(reads_confidences: bool) -> None:
    drafters: list[Drafter] = [
        tiny_head_drafter(stopping=stopping(0.5)),
        tiny_model_drafter("model", stopping=stopping(0.5)),
        tiny_model_drafter("silent"),
    ]
    engine = tiny_engine(drafters)
    curious = _Curious(reads_confidences)
    engine.use_selectors(FixedSelector(), {"other": curious})
    engine.use_selectors(curious, {})
    run_all(engine, [request(1, 0.7), request(2, 0.0)])
    told = {tuple(sorted(context.confidences)) for context in curious.seen}
    assert told == {("head", "model") if reads_confidences else ()}


def test_a_head_without_the_targets_states_fails_by_name() -> None:
    head = tiny_head_drafter()
    with pytest.raises(ValueError, match="needs the target's hidden states"):
        head.draft([DraftRequest("a", "t", [1, 2], 1, SamplingParams(), 4)])
    assert FedHead(head).draft([DraftRequest("a", "t", [1, 2], 1, SamplingParams(), 4)])[0].tokens
    assert max(TOKENS) < VOCAB
