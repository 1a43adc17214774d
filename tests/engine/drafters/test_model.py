"""A model drafter with the target's own weights is never wrong: it draws as the target does."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tiny_models import EOS, ids_of, run_all, tiny_engine, tiny_model_drafter

from engine.drafters.drafter import DraftRequest, Reader, ScoreRequest
from engine.request import GenerationRequest, SamplingParams
from policies.fixed import FixedSelector

OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0, "seed": 5},
    "penalties": {"temperature": 0.7, "presence_penalty": 1.5, "repetition_penalty": 1.3},
    "no early end": {"temperature": 0.0, "min_tokens": 20, "logit_bias": {EOS: 100.0, 7: 90.0}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_draft_of_the_targets_own_weights_is_accepted(options: dict[str, Any]) -> None:
    engine = tiny_engine([tiny_model_drafter("model", noise=0.0)])
    engine.use_selectors(FixedSelector("model", 4), {})
    sampling = SamplingParams(**options)
    asked = GenerationRequest("a", (5, 6, 7), 24, sampling, stop_token_ids=(7,))
    emissions = run_all(engine, [asked])["a"]
    use = emissions[-1].use
    assert len(ids_of(emissions)) >= sampling.min_tokens
    assert 0 < use.num_draft_tokens == use.num_accepted_tokens


def test_what_was_read_in_parts_is_drafted_and_scored_as_what_was_read_at_once() -> None:
    rng, sampling = random.Random(2), SamplingParams(temperature=0.0)
    at_once, in_parts = tiny_model_drafter("model", 4), tiny_model_drafter("model", 4)
    assert isinstance(in_parts, Reader)
    texts = {name: [rng.randrange(3, 40) for _ in range(n)] for name, n in (("a", 90), ("b", 9))}
    scores = [ScoreRequest(name, "t", text, 5, sampling) for name, text in texts.items()]
    drafts = [DraftRequest(name, "t", text, 5, sampling, 4) for name, text in texts.items()]
    left = [in_parts.read(scores, 40)]
    assert left == [[90 - (40 - 9), 0]], "of the shorter first, and no more than that in all"
    while any(left[-1]):
        left.append(in_parts.read(scores, 40))
    assert left[1:] == [[19, 0], [0, 0]]
    assert in_parts.score(scores) == at_once.score(scores)
    assert in_parts.draft(drafts) == at_once.draft(drafts)


def test_what_the_cache_cannot_hold_has_nothing_left_to_read() -> None:
    model = tiny_model_drafter("model", 4, num_blocks=4, max_length=30)
    sampling = SamplingParams(temperature=0.0)
    requests = [ScoreRequest(str(n), "t", list(range(3, 3 + n)), 2, sampling) for n in (20, 31, 8)]
    assert model.read(requests, 100) == [0, 0, 0]
