"""Tiny random models and engines over them: milliseconds a step, every code path of the large ones.

The tiny tokenizer spells id i as one character, so that texts are as easy to check as ids.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engine.config import Numerics, TargetConfig
from engine.drafters.drafter import Draft, Drafter, DraftRequest, Outcome, ScoreRequest
from engine.drafters.head import HeadDrafter, scratch_blocks
from engine.drafters.head_model import HeadModel, SharedWeights
from engine.drafters.head_runner import HeadRoom, HeadRunner
from engine.drafters.model import ModelDrafter
from engine.drafters.shape import DrafterShape
from engine.drafters.stopping import Stopping
from engine.engine import Engine
from engine.hidden_states import StoredPast
from engine.models import build_runner, prepare_model
from engine.quantisation import quantise
from engine.reduced_vocabulary import ReducedVocabulary
from engine.request import Emission, GenerationRequest
from engine.runner import Extension, ModelRunner

torch.set_num_threads(1)  # tiny products only lose by sharing them

VOCAB = 61
EOS = 2
UNDRAFTED = (0, 41, 60)
MAX_LENGTH = 256
FAMILIES = ("llama", "qwen3", "gemma3")
BFLOAT16 = "llama in bfloat16"
FLOAT16_WEIGHTS = "llama with weights in float16"
both_forms = pytest.mark.parametrize("numerics", ["fast", "invariant"])

_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_LENGTH,
    "initializer_range": 0.4,  # logits as spread as a trained model's
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}


def tiny_model(family: str = "llama", seed: int = 0, num_layers: int = 2) -> PreTrainedModel:
    """A random model; equal arguments give equal weights. Gemma3 has sliding windows of 8."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {**_SIZES, "num_hidden_layers": num_layers}
    model: PreTrainedModel
    if family in ("llama", BFLOAT16, FLOAT16_WEIGHTS):
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    elif family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**sizes))
    else:
        layers = ["sliding_attention", "full_attention"] * num_layers
        config = Gemma3TextConfig(
            **sizes, sliding_window=8, layer_types=layers[:num_layers], query_pre_attn_scalar=16
        )
        model = Gemma3ForCausalLM(config)
    model.eval()  # type: ignore[no-untyped-call]
    quantise(model, "float16" if family == FLOAT16_WEIGHTS else None)
    return model.bfloat16() if family == BFLOAT16 else model


class LetterDetokenizer:
    def push(self, token_id: int) -> str:
        return "" if token_id == EOS else chr(ord("0") + token_id)

    def flush(self) -> str:
        return ""


class LetterText:
    """A tokenizer of one letter per id; EOS has no text."""

    eos_token_ids: tuple[int, ...] = (EOS,)

    def detokenizer(self) -> LetterDetokenizer:
        return LetterDetokenizer()

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(LetterDetokenizer().push(token_id) for token_id in ids)


def tiny_engine(
    drafters: Sequence[Drafter] = (),
    *,
    family: str = "llama",
    numerics: Numerics = "invariant",
    num_kv_tokens: int = 2048,
    max_num_sequences: int = 16,
    max_batch_tokens: int = 64,
    block_size: int = 4,
) -> Engine:
    """An engine over the tiny model of `family`."""
    config = TargetConfig(
        f"tiny-{family}",
        numerics=numerics,
        num_kv_tokens=num_kv_tokens,
        block_size=block_size,
        max_num_sequences=max_num_sequences,
        max_batch_tokens=max_batch_tokens,
    )
    model = _prepared_model(family) if numerics == "invariant" else tiny_model(family)
    runner = build_runner(prepare_model(model, "cpu"), num_kv_tokens, block_size, numerics)
    if any(isinstance(drafter, HeadDrafter) for drafter in drafters):
        runner.keep_hidden_states()
    return Engine(runner, LetterText(), drafters, config, min(MAX_LENGTH, num_kv_tokens))


@functools.cache
def _prepared_model(family: str) -> PreTrainedModel:
    return prepare_model(tiny_model(family), "cpu")


@functools.cache
def _perturbed_model(family: str, seed: int, noise: float) -> PreTrainedModel:
    model = tiny_model(family)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(noise * weight.std() * torch.randn(weight.shape, generator=generator))
    return prepare_model(model, "cpu")


def tiny_model_drafter(
    name: str = "model",
    max_draft_length: int = 16,
    *,
    family: str = "llama",
    seed: int = 0,
    noise: float = 0.05,
    num_blocks: int = 512,
    stopping: Stopping | None = None,
    max_length: int = MAX_LENGTH,
) -> ModelDrafter:
    """Drafts with the tiny target's weights, perturbed: it agrees often, but not always."""
    model = _perturbed_model(family, seed, noise)
    runner = build_runner(model, num_blocks * 4, 4, "invariant")
    return ModelDrafter(
        name,
        runner,
        max_draft_length,
        num_blocks=num_blocks,
        block_size=4,
        max_sequence_length=max_length,
        stopping=stopping,
    )


@functools.cache
def _shared_weights(family: str) -> SharedWeights:
    return SharedWeights.of(tiny_model(family))


def tiny_head(family: str = "llama", seed: int = 0, noise: float = 0.05) -> HeadModel:
    """Made of the tiny Llama's own layers, perturbed; over another family it repeats tokens.

    Its inputs are normalised and the target's are not, so that it never agrees all the time.
    """
    size = _SIZES["hidden_size"]
    shape = DrafterShape(size, 2, 4, 2, 16, _SIZES["intermediate_size"], norm_eps=1e-6)
    head = HeadModel(shape)
    eye, zero = torch.eye(size), torch.zeros(size, size)
    if family == "llama":
        target = tiny_model(family).state_dict()
        weights = {
            "fuse.weight": torch.cat([_SIZES["initializer_range"] * eye, zero], 1),
            "output_norm.weight": target["model.norm.weight"],
        }
        for i in range(2):
            ours, theirs = f"layers.{i}.", f"model.layers.{i}."
            attention = [target[f"{theirs}self_attn.{side}_proj.weight"] for side in "qkv"]
            gate_up = [target[f"{theirs}mlp.{side}_proj.weight"] for side in ("gate", "up")]
            weights |= {
                f"{ours}qkv.weight": torch.cat(attention),
                f"{ours}out.weight": target[f"{theirs}self_attn.o_proj.weight"],
                f"{ours}gate_up.weight": torch.cat(gate_up),
                f"{ours}down.weight": target[f"{theirs}mlp.down_proj.weight"],
                f"{ours}attention_norm.weight": target[f"{theirs}input_layernorm.weight"],
                f"{ours}mlp_norm.weight": target[f"{theirs}post_attention_layernorm.weight"],
            }
    else:
        weights = {"fuse.weight": torch.cat([zero, eye], 1)}
        weights |= {
            f"layers.{i}.{name}.weight": torch.zeros_like(getattr(layer, name).weight)
            for i, layer in enumerate(head.layers)
            for name in ("out", "down")
        }
    head.load_state_dict(weights, strict=False)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in head.parameters():
            scale = noise * weight.std() if weight.numel() > 1 else 0.0
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return head


def tiny_head_drafter(
    name: str = "head",
    max_draft_length: int = 16,
    *,
    family: str = "llama",
    seed: int = 0,
    noise: float = 0.05,
    num_blocks: int = 512,
    stopping: Stopping | None = None,
) -> HeadDrafter:
    """Knows the tiny target's states; never drafts the ids of `UNDRAFTED`."""
    vocabulary = ReducedVocabulary([i for i in range(VOCAB) if i not in UNDRAFTED], VOCAB)
    room = HeadRoom(num_blocks, 4, scratch_blocks(4, max_draft_length))
    head, shared = tiny_head(family, seed, noise), _shared_weights(family)
    runner = HeadRunner(head, shared, vocabulary, room, "invariant")
    return HeadDrafter(name, runner, max_draft_length, stopping)


@functools.cache
def _state_runner(family: str) -> ModelRunner:
    model = prepare_model(tiny_model(family), "cpu")
    runner = build_runner(model, MAX_LENGTH, 4, "invariant")
    runner.keep_hidden_states()
    return runner


@functools.cache
def target_states(tokens: tuple[int, ...], family: str = "llama") -> torch.Tensor:
    """The tiny target's last hidden states of `tokens`: [num_tokens, hidden_size]."""
    runner = _state_runner(family)
    blocks = range(-(-len(tokens) // 4))
    runner.extend([Extension(tokens, 0, blocks, 0)])
    return runner.keep_hidden_states().read(blocks, 0, len(tokens))


class FedHead:
    """A head drafter, and beside it the target that it needs the states of."""

    is_free = False

    def __init__(self, drafter: HeadDrafter) -> None:
        self.name, self.max_draft_length = drafter.name, drafter.max_draft_length
        self._drafter = drafter

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return self._drafter.draft([replace(r, past=past_of(r.tokens)) for r in requests])

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        return self._drafter.score([replace(r, past=past_of(r.tokens)) for r in requests])

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self._drafter.forget(sequence_ids)


def past_of(tokens: Sequence[int]) -> StoredPast:
    """Of all tokens but the last, as far as the tiny target can read."""
    known = min(len(tokens) - 1, MAX_LENGTH)
    if known < 1 or known == MAX_LENGTH:
        return StoredPast(torch.zeros(0, _SIZES["hidden_size"]))
    return StoredPast(target_states(tuple(tokens[:known])))


def run_all(engine: Engine, requests: Sequence[GenerationRequest]) -> Mapping[str, list[Emission]]:
    """Submits everything at once and steps until nothing is left; emissions by sequence."""
    emissions: dict[str, list[Emission]] = {request.sequence_id: [] for request in requests}
    for request in requests:
        engine.submit(request)
    for _ in range(100_000):
        if not engine.has_work:
            break
        for emission in engine.step():
            emissions[emission.sequence_id].append(emission)
    assert not engine.has_work, "the engine does not come to an end"
    engine.check_integrity()
    return emissions


def ids_of(emissions: Sequence[Emission]) -> tuple[int, ...]:
    return tuple(token for emission in emissions for token in emission.token_ids)
