"""Fused layers say what transformers' own say; other models keep theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import VOCAB, tiny_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from engine.config import Numerics
from engine.fused_layers import FusedLayer, fuse_layers
from engine.models import build_runner, prepare_model
from engine.runner import Extension

FORMS: dict[str, dict[str, Any]] = {
    "grouped heads": {"num_key_value_heads": 2},
    "as many keys as queries": {"num_key_value_heads": 4},
    "one key for all": {"num_key_value_heads": 1},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "heads of their own size": {"head_dim": 24},
    "scaled positions": {
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    },
    "one token table": {"tie_word_embeddings": True},
    "swish": {"hidden_act": "swish"},
}


def llama(**form: Any) -> PreTrainedModel:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        initializer_range=0.4,
        **form,
    )
    model: PreTrainedModel = LlamaForCausalLM(config).eval()
    for name, weight in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.uniform_(weight, 0.5, 1.5)
    return model


def kinds(model: PreTrainedModel) -> set[str]:
    base: Any = model.base_model
    return {type(layer).__name__ for layer in base.layers}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("numerics", ["fast", "invariant"])
def test_fused_layers_say_what_the_stock_ones_say(numerics: Numerics, form: str) -> None:
    stock, model = llama(**FORMS[form]), prepare_model(llama(**FORMS[form]), "cpu")
    runner = build_runner(model, 128, 4, numerics)
    assert kinds(model) == {"FusedLayer"}
    tokens = torch.randint(3, VOCAB, (1, 30), generator=torch.Generator().manual_seed(2))
    ids = tokens[0].tolist()
    with torch.inference_mode():
        expected = stock(input_ids=tokens).logits[0]
    first = runner.extend([Extension(ids[:20], 0, range(8), 20)])
    found = [first.row(i) for i in range(20)]
    for position in range(20, 26):  # one token at a time, then the rest at once
        extension = Extension([ids[position]], position, range(8), 1)
        found.append(runner.extend([extension]).row(0))
    last = runner.extend([Extension(ids[26:], 26, range(8), 4)])
    found += [last.row(i) for i in range(4)]
    for row, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.tensor(row), wanted, atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("family", ["qwen3", "gemma3"])
def test_layers_of_another_form_stay(family: str) -> None:
    model = tiny_model(family)
    before = kinds(model)
    fuse_layers(model, "fast")
    assert kinds(model) == before


def test_another_activation_stays() -> None:
    model = llama(hidden_act="gelu")
    fuse_layers(model, "fast")
    assert kinds(model) == {"LlamaDecoderLayer"}


def test_layers_are_fused_once() -> None:
    model = llama()
    fuse_layers(model, "fast")
    layers = list(model.base_model.layers)  # type: ignore[arg-type]
    fuse_layers(model, "fast")
    assert list(model.base_model.layers) == layers  # type: ignore[arg-type]
    assert all(isinstance(layer, FusedLayer) for layer in layers)
