"""Weights of linear layers in fewer bits than what they are multiplied with.

With `float16` they are widened while they are multiplied: activations, sums and outputs stay in
float32, and half the bytes are read. Embeddings and norms stay as they are. Only for a CPU. Trained
drafters have them so wherever that works.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from engine import cpu_kernels
from engine.config import Quantization
from engine.errors import ModelRefusedError


def quantise(model: PreTrainedModel, quantization: Quantization | None) -> None:
    """Rounds a loaded model's linear layers, in place; an output layer leaves its embedding alone.

    None changes nothing. Raises ModelRefusedError for what is not in float32 on a CPU, for weights
    out of range, and where there is no kernel.
    """
    if quantization is None:
        return
    device, dtype = model.device.type, str(model.dtype).removeprefix("torch.")
    if device != "cpu":
        raise _refused(model, f"is for device: cpu, not {device}")
    if dtype != "float32":
        raise _refused(model, f"is for dtype: float32, not {dtype}")
    if not can_widen():
        raise _refused(model, "needs kernels that there are only for x86 with FMA, F16C and TBB")
    largest = torch.finfo(torch.float16).max
    for name, linear in _linears(model):
        if not bool(linear.weight.abs().amax() <= largest):  # nor for a NaN
            raise _refused(model, f"{name} has weights beyond {largest:.0f}")
    hold_weights_in(torch.float16, model)


def hold_weights_in(dtype: torch.dtype, model: nn.Module) -> None:
    """The weights of its linear layers, in place; one that is tied to another weight parts."""
    for _, linear in _linears(model):
        if linear.weight.dtype != dtype:
            linear.weight = nn.Parameter(linear.weight.data.to(dtype), requires_grad=False)


def drafters_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Of the linear layers of a trained drafter whose other numbers are in `dtype`.

    Their files have 16 bits, and what rounding does to a guess costs no token.
    """
    is_widened = device.type == "cpu" and dtype == torch.float32 and can_widen()
    return torch.float16 if is_widened else dtype


def can_widen() -> bool:
    """Whether float16 weights are multiplied by float32 here: by our kernels, on x86."""
    return cpu_kernels.are_there() and cpu_kernels.processor_has("f16c")


def _linears(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, each) for name, each in model.named_modules() if type(each) is nn.Linear]


def _refused(model: PreTrainedModel, reason: str) -> ModelRefusedError:
    return ModelRefusedError(str(model.config.model_type), f"quantization: float16 {reason}")
