"""Drafters that `training/` made, from their folders: heads, and small models of a few ids."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from engine.config import DrafterConfig
from engine.drafters.folder import DrafterFolder
from engine.drafters.head import HeadDrafter, scratch_blocks
from engine.drafters.head_model import HeadModel
from engine.drafters.head_runner import HeadRoom, HeadRunner
from engine.drafters.model import ModelDrafter
from engine.drafters.shape import DrafterShape
from engine.drafters.stopping import (
    AcceptanceEvidence,
    AcceptanceHead,
    Stopping,
    TopProbabilityEvidence,
)
from engine.errors import ModelRefusedError
from engine.linear import use_form
from engine.loaded_target import KnownTarget, LoadedTarget
from engine.models import build_runner, prepare_model
from engine.quantisation import drafters_dtype, hold_weights_in
from engine.reduced_vocabulary import ReducedVocabulary
from engine.runner import ModelRunner
from policies.calibration import Stated, TopProbability

_MAX_POSITIONS = 1 << 20  # rotary positions have no end; the target's limit holds


def build_trained(
    config: DrafterConfig, path: str, target: KnownTarget
) -> HeadDrafter | ModelDrafter:
    """Raises ModelRefusedError for a damaged folder, or one that is for another target."""
    folder = DrafterFolder.read(path)
    folder.refuse_other_target(target.identity, config.kind)
    longest, stopping = config.max_draft_length, None
    if config.stop_threshold is not None:
        by_head = folder.card.num_acceptance_blocks is not None
        make = stopping_by_head if by_head else stopping_by_probability
        stopping = make(folder, target, config.stop_threshold, longest)
    return drafter_of(folder, target, config.name, longest, stopping)


def drafter_of(
    folder: DrafterFolder,
    target: KnownTarget,
    name: str,
    longest: int,
    stopping: Stopping | None = None,
) -> HeadDrafter | ModelDrafter:
    """The drafter of a folder that is known to be for this target."""
    if folder.card.kind == "head":
        if not isinstance(target, LoadedTarget):
            raise ModelRefusedError(name, "a head drafts in its target's process, not on a host")
        if target.shared is None:
            reason = "its target keeps no hidden states, as it was started without a head"
            raise ModelRefusedError(name, reason)
        return HeadDrafter(name, head_runner(folder, target, longest), longest, stopping)
    return ModelDrafter(
        name,
        small_model_runner(folder, target),
        longest,
        num_blocks=target.num_blocks,
        block_size=target.config.block_size,
        max_sequence_length=target.max_sequence_length,
        stopping=stopping,
    )


def head_runner(folder: DrafterFolder, target: LoadedTarget, max_draft_length: int) -> HeadRunner:
    """A head with as much room as its target has."""
    assert target.shared is not None, "the target was loaded for heads"
    weights, ids = folder.weights()
    model = HeadModel(folder.card.shape)
    _load(model, weights, folder)
    block_size = target.config.block_size
    num_scratch = scratch_blocks(block_size, max_draft_length)
    room = HeadRoom(target.num_blocks, block_size, num_scratch)
    vocabulary = _vocabulary(ids, folder)
    return HeadRunner(model, target.shared, vocabulary, room, target.config.numerics)


def small_model_runner(folder: DrafterFolder, target: KnownTarget) -> ModelRunner:
    """A small model with as much room as its target has."""
    weights, ids = folder.weights()
    vocabulary = _vocabulary(ids, folder)
    model = small_model(folder.card.shape, len(vocabulary))
    _load(model, weights, folder)
    config = target.config
    prepared = prepare_model(model.to(target.dtype), config.device)  # type: ignore[arg-type]
    hold_weights_in(drafters_dtype(target.dtype, prepared.device), prepared)
    return build_runner(
        prepared, config.num_kv_tokens, config.block_size, config.numerics, vocabulary
    )


def small_model(shape: DrafterShape, num_ids: int) -> LlamaForCausalLM:
    """A Llama of `num_ids` ids and one more, which stands for all others."""
    return LlamaForCausalLM(small_model_config(shape, num_ids + 1))


def small_model_config(shape: DrafterShape, vocab_size: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def small_model_weights(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """What a folder holds of it: the output layer is the embedding."""
    return {name: w for name, w in model.state_dict().items() if name != "lm_head.weight"}


def _load(model: nn.Module, weights: dict[str, Tensor], folder: DrafterFolder) -> None:
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().rsplit("\n", 1)[-1].strip()
        raise ModelRefusedError(str(folder.path), f"its weights do not fit: {reason}") from error
    wrong = [name for name in missing if name != "lm_head.weight"] + unexpected
    if wrong:
        raise ModelRefusedError(str(folder.path), f"its weights do not fit its shape: {wrong[0]}")


def _vocabulary(ids: list[int], folder: DrafterFolder) -> ReducedVocabulary:
    try:
        return ReducedVocabulary(ids, folder.card.target.vocab_size)
    except ValueError as error:
        raise ModelRefusedError(str(folder.path), str(error)) from error


def acceptance_head(folder: DrafterFolder) -> AcceptanceHead | None:
    """None if the drafter has none."""
    num_blocks = folder.card.num_acceptance_blocks
    if num_blocks is None:
        return None
    head = AcceptanceHead(folder.card.shape.hidden_size, num_blocks)
    _load(head, folder.acceptance_weights(), folder)
    return head.eval()


def stopping_by_head(
    folder: DrafterFolder, target: KnownTarget, threshold: float, longest: int
) -> Stopping:
    """By the drafter's acceptance head."""
    head = acceptance_head(folder)
    if head is None:
        raise ModelRefusedError(str(folder.path), "has no acceptance head to stop by")
    head = head.to(target.config.device, target.dtype)
    use_form(head, target.config.numerics)
    return Stopping(AcceptanceEvidence(head), Stated(), threshold, longest)


def stopping_by_probability(
    folder: DrafterFolder, target: KnownTarget, threshold: float, longest: int
) -> Stopping:
    """By the drafter's top probability, as it was found to come true."""
    counts = folder.calibration()
    if counts is None:
        reason = "has no acceptance head and no calibration, so that stop_threshold cannot be used"
        raise ModelRefusedError(str(folder.path), reason)
    try:
        predictor = TopProbability.of(*counts)
    except ValueError as error:
        raise ModelRefusedError(str(folder.path), str(error)) from error
    return Stopping(TopProbabilityEvidence(), predictor, threshold, longest)
