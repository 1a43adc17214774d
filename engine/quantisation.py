"""Weights of linear layers in fewer bits than what they are multiplied with.

With `float16` FBGEMM, which comes with torch, widens them while it multiplies: activations, sums
and outputs stay in float32, and half the bytes are read. Embeddings and norms stay as they are.
Only for a CPU. Trained drafters have them so wherever that works.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from engine.config import Quantization
from engine.errors import ModelRefusedError

_ENGINES_WITH_FBGEMM = ("fbgemm", "x86")


def quantise(model: PreTrainedModel, quantization: Quantization | None) -> None:
    """Rounds a loaded model's linear layers, in place; an output layer leaves its embedding alone.

    None changes nothing. Raises ModelRefusedError for what is not in float32 on a CPU, for weights
    out of range, and where there is no FBGEMM.
    """
    if quantization is None:
        return
    device, dtype = model.device.type, str(model.dtype).removeprefix("torch.")
    if device != "cpu":
        raise _refused(model, f"is for device: cpu, not {device}")
    if dtype != "float32":
        raise _refused(model, f"is for dtype: float32, not {dtype}")
    if not can_widen():
        raise _refused(model, "needs FBGEMM, which torch does not have for this processor")
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
    """Whether torch multiplies float32 by float16 weights here: on x86 from AVX2 on."""
    return torch.backends.quantized.engine in _ENGINES_WITH_FBGEMM


def widening_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x -> x @ weight.T + bias, computed in float32 and given as x is."""
    as_floats = None if bias is None else bias.float()
    packed = torch.ops.quantized.linear_prepack_fp16(weight.float(), as_floats)
    multiply = torch.ops.quantized.linear_dynamic_fp16.default

    def product(x: Tensor) -> Tensor:
        out: Tensor = multiply(x.float(), packed)
        return out.to(x.dtype)

    return product


def _linears(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, each) for name, each in model.named_modules() if type(each) is nn.Linear]


def _refused(model: PreTrainedModel, reason: str) -> ModelRefusedError:
    return ModelRefusedError(str(model.config.model_type), f"quantization: float16 {reason}")
