"""Requests for tiny engines whose prompts repeat themselves, and drafters that find something."""

from __future__ import annotations

import random
from typing import Any

from tiny_models import VOCAB, tiny_model_drafter

from engine.drafters.drafter import Drafter
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.drafters.suffix import SuffixDrafter
from engine.request import GenerationRequest, SamplingParams

DRAFTERS = ("prompt_lookup", "suffix", "model")


def request(index: int, temperature: float, **options: Any) -> GenerationRequest:
    """Request `index`; the same index and options give the same request."""
    rng = random.Random(index)
    motif = [rng.randrange(3, VOCAB) for _ in range(rng.randint(2, 6))]
    prompt = (motif * 12)[: rng.randint(1, 40)]
    fields = {
        key: options.pop(key)
        for key in ("stop", "ignore_eos", "tenant", "speculation", "max_tokens")
        if key in options
    }
    sampling = SamplingParams(temperature=temperature, seed=index * 7919, **options)
    return GenerationRequest(
        sequence_id=f"{index}",
        prompt_ids=tuple(prompt),
        sampling=sampling,
        **{"max_tokens": 24, **fields},
    )


def drafter(name: str, longest: int = 16, **options: Any) -> Drafter:
    if name == "prompt_lookup":
        return PromptLookupDrafter(name, longest, 6, 1)
    if name == "suffix":
        return SuffixDrafter(name, longest)
    return tiny_model_drafter(name, longest, **options)
