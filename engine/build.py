"""Builds an engine from its configuration: loads the models, makes the drafters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoConfig, PreTrainedModel

from engine.config import DrafterConfig, TargetConfig
from engine.drafters.drafter import Drafter
from engine.drafters.model import ModelDrafter
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.drafters.suffix import SuffixDrafter
from engine.engine import Engine
from engine.errors import ModelRefusedError
from engine.model_files import resolve_model
from engine.models import build_runner, load_model, refuse_unless_supported
from engine.text import Text
from engine.warm_up import measure_steps


def build_engine(
    target: TargetConfig, drafters: Sequence[DrafterConfig], elsewhere: Sequence[Drafter] = ()
) -> Engine:
    """Loads and measures everything; raises ModelRefusedError for what cannot be served.

    `drafters` run in this process; those `elsewhere` are there already.
    """
    if target.num_threads is not None:
        torch.set_num_threads(target.num_threads)
    folder = resolve_model(target.model)
    text = Text.load(folder)
    model = load_model(folder, target.device, target.dtype)
    max_length = longest_sequence(model, target)
    runner = build_runner(model, target.num_kv_tokens, target.block_size, target.numerics)
    if text.vocab_size > runner.vocab_size:
        raise ModelRefusedError(
            target.model, f"its tokenizer has {text.vocab_size} ids, its logits {runner.vocab_size}"
        )
    built = [build_drafter(drafter, target, runner.vocab_size) for drafter in drafters]
    engine = Engine(runner, text, [*built, *elsewhere], target, max_length)
    for step in measure_steps(runner, min(target.max_batch_tokens, max_length), target.block_size):
        engine.costs.observe_step(step, num_draft_tokens=0)
    return engine


def build_hosted_drafters(target: TargetConfig, drafters: Sequence[DrafterConfig]) -> list[Drafter]:
    """Drafters for a target elsewhere, with the device and the room that `target` says here."""
    if target.num_threads is not None:
        torch.set_num_threads(target.num_threads)
    folder = resolve_model(target.model)
    refuse_unless_supported(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    return [build_drafter(drafter, target, int(config.vocab_size)) for drafter in drafters]


def longest_sequence(model: PreTrainedModel, target: TargetConfig) -> int:
    """Most tokens of prompt and answer: the model's limit, the cache's, and the configured one."""
    limits = [
        getattr(model.config.get_text_config(), "max_position_embeddings", None),
        target.num_kv_tokens // target.block_size * target.block_size,
        target.max_sequence_length,
    ]
    return min(int(limit) for limit in limits if limit is not None)


def build_drafter(config: DrafterConfig, target: TargetConfig, vocab_size: int) -> Drafter:
    """One in-process drafter; a model drafter must have the target's vocabulary."""
    if config.kind == "prompt_lookup":
        return PromptLookupDrafter(config.name, config.max_draft_length)
    if config.kind == "suffix":
        return SuffixDrafter(config.name, config.max_draft_length)
    if config.model is None:
        raise ModelRefusedError(config.name, "a drafter of kind model needs a model")
    return _build_model_drafter(config, config.model, target, vocab_size)


def _build_model_drafter(
    config: DrafterConfig, name: str, target: TargetConfig, vocab_size: int
) -> ModelDrafter:
    folder = resolve_model(name)
    if (folder / "tokenizer.json").is_file():
        _refuse_other_tokenizer(name, Text.load(folder), Text.load(resolve_model(target.model)))
    model = load_model(folder, target.device, target.dtype)
    max_length = longest_sequence(model, target)
    runner = build_runner(model, target.num_kv_tokens, target.block_size, target.numerics)
    if runner.vocab_size != vocab_size:
        raise ModelRefusedError(
            name, f"its vocabulary has {runner.vocab_size} ids, the target's {vocab_size}"
        )
    return ModelDrafter(
        config.name,
        runner,
        config.max_draft_length,
        num_blocks=-(-target.num_kv_tokens // target.block_size),
        block_size=target.block_size,
        max_sequence_length=max_length,
    )


def _refuse_other_tokenizer(name: str, drafter: Text, target: Text) -> None:
    """Ids must mean the same tokens, or every draft would be noise."""
    if drafter.vocab_size != target.vocab_size:
        raise ModelRefusedError(
            name, f"its tokenizer has {drafter.vocab_size} ids, the target's {target.vocab_size}"
        )
    for token_id in range(target.vocab_size):
        if drafter.token_bytes(token_id) != target.token_bytes(token_id):
            raise ModelRefusedError(name, f"its token {token_id} is not the target's")
