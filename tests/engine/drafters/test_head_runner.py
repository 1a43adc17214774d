"""A head as it is served says what it said in training."""

from __future__ import annotations

import pytest
import torch
from tiny_models import VOCAB, tiny_head, tiny_model
from torch import Tensor
from torch.nn import functional

from engine.config import Numerics
from engine.drafters.head_model import SharedWeights
from engine.drafters.head_runner import HeadRoom, HeadRunner
from engine.reduced_vocabulary import ReducedVocabulary
from engine.runner import Extension

NUM_TOKENS = 21


def dense(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out.transpose(1, 2)


@pytest.mark.parametrize("numerics", ["fast", "invariant"])
def test_a_served_head_computes_what_the_trained_one_does(numerics: Numerics) -> None:
    shared = SharedWeights.of(tiny_model())
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(3, VOCAB, (NUM_TOKENS,), generator=generator)
    states = torch.randn(NUM_TOKENS, shared.output.shape[1], generator=generator)
    with torch.inference_mode():
        embedded = shared.embed(tokens[None])
        as_filed = tiny_head().half().float()
        expected = as_filed(embedded, states[None], torch.arange(NUM_TOKENS), dense)[0]
    ids = ReducedVocabulary(range(VOCAB), VOCAB)
    runner = HeadRunner(tiny_head(), shared, ids, HeadRoom(8, 4, 2), numerics)
    parts, start = [], 0
    for end in (12, 13, 14, NUM_TOKENS):  # a prompt, token by token, and several at once
        extension = Extension(tokens[start:end].tolist(), start, range(8), 0)
        parts.append(runner.extend([extension], states[start:end]))
        start = end
    torch.testing.assert_close(torch.cat(parts), expected, atol=2e-4, rtol=1e-3)
