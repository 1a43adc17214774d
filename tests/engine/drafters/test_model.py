"""A model drafter with the target's own weights is never wrong: it draws as the target does."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_models import EOS, ids_of, run_all, tiny_engine, tiny_model_drafter

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
