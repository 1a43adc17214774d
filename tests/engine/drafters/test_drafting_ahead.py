"""A model drafter that goes on as if all it drafted were accepted says the same, and sooner."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from tiny_models import ids_of, run_all, tiny_engine, tiny_model_drafter

from engine.drafters.drafter import DraftRequest, Forerunner, ScoreRequest
from engine.drafters.model import ModelDrafter
from engine.request import GenerationRequest, SamplingParams
from engine.runner import Extension, Logits

PROMPT = (5, 6, 7)
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0, "seed": 5},
    "penalties": {"temperature": 0.7, "presence_penalty": 1.5, "repetition_penalty": 1.3},
}


def answer(sampling: SamplingParams, num_tokens: int = 60) -> list[int]:
    """Prompt and what the target says."""
    asked = GenerationRequest("a", PROMPT, num_tokens, sampling, ignore_eos=True)
    return [*PROMPT, *ids_of(run_all(tiny_engine(), [asked])["a"])]


def accepted(draft: Sequence[int], verified: Sequence[int]) -> int:
    """How many of `draft` are what comes next."""
    right = [drafted == told for drafted, told in zip(draft, verified, strict=False)]
    return [*right, False].index(False)


def count_forwards(drafter: ModelDrafter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each forward from now on: how many sequences it had."""
    extend, counted = drafter._runner.extend, list[int]()

    def counting(extensions: Sequence[Extension]) -> Logits:
        counted.append(len(extensions))
        return extend(extensions)

    monkeypatch.setattr(drafter._runner, "extend", counting)
    return counted


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("num_blocks", [512, 9], ids=["room", "hardly any room"])
def test_no_draft_and_no_outcome_changes(num_blocks: int, options: dict[str, Any]) -> None:
    rng, sampling = random.Random(3), SamplingParams(**options)
    plain = tiny_model_drafter("plain", 4)
    ahead = tiny_model_drafter("ahead", 4, num_blocks=num_blocks)
    text = answer(sampling)
    base, num_ahead = len(PROMPT), 0
    while base < len(text) - 5:
        known, length = text[:base], rng.randint(1, 4)
        for name in ("a", "b") if num_blocks == 9 else ("a",):
            request = DraftRequest(name, "t", known, len(PROMPT), sampling, length)
            (draft,) = ahead.draft([request])
            if base + length <= 36:  # beyond, nine blocks do not hold it
                assert [draft] == plain.draft([request])
            longer = DraftRequest(name, "t", known, len(PROMPT), sampling, 2 * length + 1)
            for _ in range(rng.randint(0, 12)):
                num_ahead += ahead.draft_ahead([longer])
        if rng.random() < 0.3 and num_blocks == 512:
            score = ScoreRequest("a", "t", known, len(PROMPT), sampling)
            assert ahead.score([score]) == plain.score([score])
        base += accepted(draft.tokens, text[base:]) + 1
    assert num_ahead > 20


def test_what_is_there_when_it_is_asked_for_takes_no_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drafter = tiny_model_drafter("model", 4, noise=0.0)  # never wrong
    assert isinstance(drafter, Forerunner)
    sampling = SamplingParams(temperature=0.0)
    text = answer(sampling)
    first = DraftRequest("a", "t", text[:10], len(PROMPT), sampling, 4)
    drafter.draft([first])
    forwards = count_forwards(drafter, monkeypatch)
    longer = DraftRequest("a", "t", text[:10], len(PROMPT), sampling, 9)
    while drafter.draft_ahead([longer]):
        pass
    assert forwards == [1] * 5, "the target's own token, and another draft"
    (draft,) = drafter.draft([DraftRequest("a", "t", text[:15], len(PROMPT), sampling, 4)])
    assert list(draft.tokens) == text[15:19]
    assert len(forwards) == 5


def test_only_what_was_drafted_goes_on_and_takes_no_room_from_others() -> None:
    sampling = SamplingParams(temperature=0.0)
    drafter = tiny_model_drafter("model", 4, num_blocks=4)
    one, other = (
        DraftRequest(name, "t", list(range(3, 10)), len(PROMPT), sampling, 1) for name in "ab"
    )
    longer = DraftRequest("a", "t", one.tokens, len(PROMPT), sampling, 9)
    assert not drafter.draft_ahead([longer]), "it was never drafted"
    drafter.draft([one])
    drafter.draft([other])  # both hold two blocks of four tokens
    assert drafter.draft_ahead([longer]), "the eighth token"
    assert not drafter.draft_ahead([longer]), "the ninth would need a block"
    told = DraftRequest("a", "t", [*one.tokens, 50, 51], len(PROMPT), sampling, 9)
    assert not drafter.draft_ahead([told]), "there is something to read first"
