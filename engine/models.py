"""Loads a causal LM so that it can be decoded losslessly, or refuses it by name.

The model's code is transformers' own; only its attention and its linear layers are replaced.
Weights come from safetensors; no code of a model's repository ever runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from engine.attention_interface import ATTENTION, ShapeProbe, UnsupportedAttention
from engine.config import Numerics, Quantization
from engine.errors import ModelRefusedError
from engine.fused_layers import fuse_layers
from engine.kv_cache import KVCache
from engine.linear import use_form
from engine.model_files import read_config
from engine.quantisation import quantise
from engine.reduced_vocabulary import ReducedVocabulary
from engine.runner import ModelRunner

_CHANGING_ROPES = {"dynamic", "longrope"}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ROLLS_BACK = {"full_attention", "sliding_attention"}


def load_model(
    folder: Path, device: str, dtype: str, quantization: Quantization | None = None
) -> PreTrainedModel:
    """The model of `folder`, in evaluation mode, with paged attention."""
    refuse_unless_supported(folder)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a damaged file makes the loader raise
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelRefusedError(str(folder), f"cannot be loaded: {reason}") from error
    model, loading = loaded
    missing = sorted(loading["missing_keys"])
    if missing:  # transformers would leave them random
        raise ModelRefusedError(str(folder), f"{len(missing)} weights are missing: {missing[0]}")
    assert isinstance(model, PreTrainedModel)
    prepared = prepare_model(model, device)
    quantise(prepared, quantization)
    return prepared


def prepare_model(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """Moves a loaded model to `device` and gives it paged attention, in place."""
    try:
        model.to(torch.device(device)).eval()  # type: ignore[arg-type]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelRefusedError(str(model.config.model_type), f"{device}: {reason}") from error
    model.set_attn_implementation(ATTENTION)
    return model


def refuse_unless_supported(folder: Path) -> None:
    """Raises ModelRefusedError for what cannot be rolled back or is no causal LM."""
    raw = read_config(folder)
    name = str(raw.get("model_type", folder.name))
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise ModelRefusedError(name, f"transformers does not know it: {error}") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelRefusedError(name, "it is not a causal language model")
    refuse_family(name, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config.get_text_config())


def refuse_family(name: str, model_class: Any, config: Any) -> None:
    """The checks that need a class and a config only."""
    other = sorted(set(getattr(config, "layer_types", None) or ()) - _ROLLS_BACK)
    if getattr(model_class, "_is_stateful", False) or other:
        detail = f" ({', '.join(other)})" if other else ""
        raise ModelRefusedError(
            name,
            f"its layers keep a state{detail} that cannot be rolled back after a rejected draft",
        )
    if getattr(config, "num_kv_shared_layers", 0):
        raise ModelRefusedError(name, "layers that share keys and values are not supported")
    changing = sorted(_rope_types(config) & _CHANGING_ROPES)
    if changing:
        raise ModelRefusedError(
            name,
            f"its positions ({', '.join(changing)} RoPE) depend on the other tokens of a batch",
        )
    if not getattr(model_class, "_supports_attention_backend", False):
        raise ModelRefusedError(name, "its attention cannot be replaced in transformers")


def _rope_types(config: Any) -> set[str]:
    """RoPE types of all layers; a config has one, or one per layer type."""
    ropes = getattr(config, "rope_parameters", None) or {}
    nested = [rope for rope in ropes.values() if isinstance(rope, dict)] or [ropes]
    return {str(rope.get("rope_type", "default")) for rope in nested}


def build_runner(
    model: PreTrainedModel,
    num_kv_tokens: int,
    block_size: int,
    numerics: Numerics,
    vocabulary: ReducedVocabulary | None = None,
) -> ModelRunner:
    """A runner with room for `num_kv_tokens` positions; changes the model's linear layers."""
    name = str(model.config.model_type)
    config = model.config.get_text_config()
    if numerics == "invariant" and any(getattr(config, key, None) for key in _EXPERTS):
        raise ModelRefusedError(name, "numerics: invariant does not cover its experts; use fast")
    fuse_layers(model, numerics)
    use_form(model, numerics)
    probe = ShapeProbe()
    try:
        with torch.inference_mode():
            model(
                input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device),
                position_ids=torch.arange(2, device=model.device)[None],
                use_cache=False,
                batch=probe,
            )
    except UnsupportedAttention as error:
        raise ModelRefusedError(name, str(error)) from error
    except Exception as error:  # whatever code makes of layers and keywords it does not know
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelRefusedError(name, f"its layers cannot be replaced: {reason}") from error
    if sorted(probe.layers) != list(range(len(probe.layers))) or not probe.layers:
        raise ModelRefusedError(
            name, "not all of its layers attend through transformers' interface"
        )
    shapes = [probe.layers[i] for i in range(len(probe.layers))]
    cache = KVCache(shapes, -(-num_kv_tokens // block_size), block_size)
    return ModelRunner(model, cache, numerics, vocabulary)
