"""Models that can be decoded losslessly load; every other is refused by name, saying why."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_folders import folder_of, saved
from tiny_models import FAMILIES, VOCAB, tiny_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BartConfig,
    BertConfig,
    DiffLlamaConfig,
    Gemma2Config,
    JambaConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    NemotronConfig,
    PreTrainedConfig,
    Qwen3NextConfig,
    T5Config,
)

from engine.config import TargetConfig
from engine.errors import ModelRefusedError
from engine.loaded_target import longest_sequence
from engine.models import (
    build_runner,
    load_model,
    prepare_model,
    refuse_family,
    refuse_unless_supported,
)
from engine.runner import Extension


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_loads_and_says_what_the_stock_model_says(
    family: str, tmp_path: Path
) -> None:
    stock = tiny_model(family)
    model = load_model(saved(tmp_path, family), "cpu", "float32")
    runner = build_runner(model, 128, 4, "fast")
    assert runner.vocab_size == VOCAB
    tokens = torch.randint(3, VOCAB, (1, 30), generator=torch.Generator().manual_seed(2))
    found = runner.extend([Extension(tokens[0].tolist(), 0, range(8), 30)])
    with torch.inference_mode():
        expected = stock(input_ids=tokens).logits[0]
    for position in range(30):
        torch.testing.assert_close(
            torch.tensor(found.row(position)), expected[position], atol=2e-4, rtol=1e-4
        )
        assert found.greedy(position) == int(found.row(position).argmax())


def test_a_model_is_loaded_in_the_type_asked_for(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path), "cpu", "bfloat16")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert not model.training


STATEFUL: dict[str, PreTrainedConfig] = {
    "mamba": MambaConfig(),
    "jamba": JambaConfig(),
    "qwen3_next": Qwen3NextConfig(num_hidden_layers=4),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_a_family_that_keeps_a_state_is_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = folder_of(STATEFUL[name], tmp_path)
    with pytest.raises(ModelRefusedError, match=rf"^{name}: .*cannot be rolled back") as caught:
        refuse_unless_supported(folder)
    assert caught.value.model == name


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_batch_are_refused(rope_type: str) -> None:
    config = SimpleNamespace(rope_parameters={"rope_type": rope_type, "rope_theta": 1e4})
    with pytest.raises(ModelRefusedError, match=f"^phi: .*{rope_type}"):
        refuse_family("phi", LlamaForCausalLM, config)
    refuse_family("llama", LlamaForCausalLM, SimpleNamespace(rope_parameters={"rope_type": "yarn"}))


@pytest.mark.parametrize("kind", ["linear_attention", "chunked_attention"])
def test_a_layer_that_cannot_roll_back_is_named(kind: str, tmp_path: Path) -> None:
    config = tiny_model("qwen3").config.to_dict()
    config["layer_types"] = ["full_attention", kind]
    with pytest.raises(ModelRefusedError, match=kind):
        load_model(folder_of(config, tmp_path), "cpu", "float32")


@pytest.mark.parametrize("config", [T5Config(), BartConfig()], ids=["t5", "bart"])
def test_an_encoder_decoder_is_refused_by_name(config: PreTrainedConfig, tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=config.model_type):
        load_model(folder_of(config, tmp_path), "cpu", "float32")


SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def build(config: PreTrainedConfig) -> None:
    model = AutoModelForCausalLM.from_config(config).eval()
    build_runner(prepare_model(model, "cpu"), 64, 4, "fast")


def test_an_encoder_is_refused_by_name() -> None:
    """It would decode, with an attention that it was not trained for."""
    with pytest.raises(ModelRefusedError, match="bert: its attention looks ahead"):
        build(BertConfig(**SMALL))


def test_a_layer_that_attends_twice_is_refused_by_name() -> None:
    """Its first keys and values would be written over by its second."""
    with pytest.raises(ModelRefusedError, match="diffllama: a layer of it attends more than once"):
        build(DiffLlamaConfig(**SMALL))


def test_a_model_whose_forward_drops_our_keywords_is_refused_by_name() -> None:
    with pytest.raises(ModelRefusedError, match="nemotron: its layers cannot be replaced"):
        build(NemotronConfig(**SMALL, num_key_value_heads=2))


def test_a_config_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="vit: it is not a causal language model"):
        load_model(folder_of(AutoConfig.for_model("vit"), tmp_path), "cpu", "float32")


def test_a_family_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = folder_of({"model_type": "no_such_family"}, tmp_path)
    with pytest.raises(ModelRefusedError, match="no_such_family"):
        load_model(folder, "cpu", "float32")


def test_attention_with_a_softcap_is_refused_by_name() -> None:
    with pytest.raises(ModelRefusedError, match="gemma2: its attention needs softcap"):
        build(Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8))


def test_a_repositorys_own_code_is_refused_before_transformers_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_model().config.to_dict()
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    folder = folder_of(config, tmp_path)
    (folder / "evil.py").write_text("raise SystemExit('ran')")

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("transformers was asked")

    monkeypatch.setattr(AutoConfig, "from_pretrained", never)
    with pytest.raises(ModelRefusedError, match="auto_map"):
        load_model(folder, "cpu", "float32")


def test_the_longest_sequence_is_the_least_of_model_cache_and_setting() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, max_position_embeddings=100))
    for num_kv_tokens, setting, expected in ((1000, None, 100), (90, None, 80), (1000, 50, 50)):
        target = TargetConfig(
            "m", num_kv_tokens=num_kv_tokens, block_size=16, max_sequence_length=setting
        )
        assert longest_sequence(model.config, target) == expected
