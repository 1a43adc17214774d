"""Builds an engine from its configuration: loads the models, makes the drafters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from engine.config import DrafterConfig, TargetConfig
from engine.drafters.drafter import Drafter
from engine.drafters.model import ModelDrafter
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.drafters.suffix import SuffixDrafter
from engine.drafters.trained import build_trained
from engine.engine import Engine
from engine.errors import ModelRefusedError
from engine.loaded_target import KnownTarget, LoadedTarget, longest_sequence
from engine.model_files import resolve_model
from engine.models import build_runner, load_model
from engine.text import Text
from engine.warm_up import measure_steps


def build_engine(
    config: TargetConfig, drafters: Sequence[DrafterConfig], elsewhere: Sequence[Drafter] = ()
) -> Engine:
    """Loads and measures everything; raises ModelRefusedError for what cannot be served.

    `drafters` run in this process; those `elsewhere` are there already.
    """
    target = load_target(config, drafters)
    built = [build_drafter(drafter, target) for drafter in drafters]
    return build_engine_on(target, [*built, *elsewhere])


def load_target(config: TargetConfig, drafters: Iterable[DrafterConfig]) -> LoadedTarget:
    """With what these drafters need of it, on as many threads as `config` says."""
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    return LoadedTarget.load(config, with_heads=wants_heads(drafters))


def build_engine_on(target: LoadedTarget, drafters: Sequence[Drafter]) -> Engine:
    """Measures the target's steps, too."""
    config = target.config
    engine = Engine(target.runner, target.text, drafters, config, target.max_sequence_length)
    longest_step = min(config.max_batch_tokens, target.max_sequence_length)
    for step in measure_steps(target.runner, longest_step, config.block_size):
        engine.costs.observe_step(step, num_draft_tokens=0)
    return engine


def wants_heads(drafters: Iterable[DrafterConfig]) -> bool:
    """Whether the target must keep its hidden states for one of them."""
    return any(drafter.kind == "head" for drafter in drafters)


def read_target(config: TargetConfig) -> KnownTarget:
    """A target elsewhere, for drafters with the device and the room that `config` says here."""
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    return KnownTarget.read(config)


def build_drafter(config: DrafterConfig, target: KnownTarget) -> Drafter:
    """A drafter of this process, on any thread of it; raises ModelRefusedError.

    A model drafter must have the target's vocabulary.
    """
    if config.kind == "prompt_lookup":
        return PromptLookupDrafter(config.name, config.max_draft_length)
    if config.kind == "suffix":
        return SuffixDrafter(config.name, config.max_draft_length)
    if config.path is not None:
        return build_trained(config, config.path, target)
    if config.model is None or config.kind == "head":
        raise ModelRefusedError(config.name, f"a drafter of kind {config.kind} needs a path")
    return _build_model_drafter(config, config.model, target)


def _build_model_drafter(config: DrafterConfig, name: str, target: KnownTarget) -> ModelDrafter:
    folder = resolve_model(name)
    if (folder / "tokenizer.json").is_file():
        _refuse_other_tokenizer(name, Text.load(folder), target.text)
    settings = target.config
    model = load_model(folder, settings.device, settings.dtype, settings.quantization)
    max_length = longest_sequence(model.config.get_text_config(), settings)
    runner = build_runner(model, settings.num_kv_tokens, settings.block_size, settings.numerics)
    vocab_size = target.vocab_size
    if runner.vocab_size != vocab_size:
        raise ModelRefusedError(
            name, f"its vocabulary has {runner.vocab_size} ids, the target's {vocab_size}"
        )
    return ModelDrafter(
        config.name,
        runner,
        config.max_draft_length,
        num_blocks=target.num_blocks,
        block_size=settings.block_size,
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
