"""The target as it is in memory, and what is built around it: engine and drafters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig

from engine.config import TargetConfig
from engine.drafters.folder import TargetIdentity
from engine.drafters.head_model import SharedWeights
from engine.errors import ModelRefusedError
from engine.model_files import resolve_model
from engine.models import build_runner, load_model, refuse_unless_supported
from engine.runner import ModelRunner
from engine.text import Text


@dataclass(frozen=True)
class KnownTarget:
    """What a drafter must know of its target, which may be in another process."""

    config: TargetConfig
    folder: Path
    text: Text
    vocab_size: int
    max_sequence_length: int

    @staticmethod
    def read(config: TargetConfig) -> KnownTarget:
        """From its files alone; raises ModelRefusedError for what cannot be served."""
        folder = resolve_model(config.model)
        refuse_unless_supported(folder)
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
        longest = longest_sequence(settings, config)
        return KnownTarget(config, folder, Text.load(folder), int(settings.vocab_size), longest)

    @cached_property
    def identity(self) -> TargetIdentity:
        return TargetIdentity.of(self.config.model, self.folder)

    @property
    def dtype(self) -> torch.dtype:
        found = getattr(torch, self.config.dtype)
        assert isinstance(found, torch.dtype)
        return found

    @property
    def num_blocks(self) -> int:
        return -(-self.config.num_kv_tokens // self.config.block_size)


@dataclass(frozen=True)
class LoadedTarget(KnownTarget):
    """A target that is ready to decode; `shared` is what heads borrow of it, if any are wanted."""

    runner: ModelRunner
    shared: SharedWeights | None = None

    @staticmethod
    def load(config: TargetConfig, with_heads: bool = False) -> LoadedTarget:
        """Raises ModelRefusedError for what cannot be served. `with_heads`: states are kept."""
        folder = resolve_model(config.model)
        text = Text.load(folder)
        model = load_model(folder, config.device, config.dtype, config.quantization)
        longest = longest_sequence(model.config.get_text_config(), config)
        shared = SharedWeights.of(model) if with_heads else None
        runner = build_runner(model, config.num_kv_tokens, config.block_size, config.numerics)
        if text.vocab_size > runner.vocab_size:
            raise ModelRefusedError(
                config.model,
                f"its tokenizer has {text.vocab_size} ids, its logits {runner.vocab_size}",
            )
        if with_heads:
            runner.keep_hidden_states()
        return LoadedTarget(config, folder, text, runner.vocab_size, longest, runner, shared)


def longest_sequence(model: PretrainedConfig, target: TargetConfig) -> int:
    """Most tokens of prompt and answer: the model's limit, the cache's, and the configured one."""
    limits = [
        getattr(model, "max_position_embeddings", None),
        target.num_kv_tokens // target.block_size * target.block_size,
        target.max_sequence_length,
    ]
    return min(int(limit) for limit in limits if limit is not None)
