"""The linear layers of a loaded model, each computed by the fastest product that there is for it.

Float32 and float16 weights on a CPU are multiplied by our kernel, where a row has bits of its own.
Elsewhere weights on a CPU are packed once for oneDNN (the operator that torch.compile emits),
measured 1.3-3x faster than `F.linear` for 1-64 rows in float32, 1.3-1.8x in bfloat16; then
`invariant` computes every row in a slice of exactly `SLICE_ROWS` rows, so that its bits depend
neither on the other rows nor on their number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine import cpu_kernels
from engine.config import Numerics
from engine.product_kernel import EPILOGUES, PanelWeight, multiply
from engine.quantisation import can_widen

SLICE_ROWS = 16
_PACKED_MIN_ROWS = 4  # oneDNN takes longer for 1-3 rows than for 4


def use_form(model: nn.Module, numerics: Numerics) -> None:
    """Replaces every `nn.Linear` inside `model`, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, FormedLinear(child, numerics))


def fewest_rows(*models: nn.Module) -> int:
    """That all of their replaced layers are fast for."""
    layers = [layer for model in models for layer in model.modules()]
    return max((layer.min_rows for layer in layers if isinstance(layer, FormedLinear)), default=1)


Epilogue = Literal["none", "swish", "mul", "add"]
"""What follows a product: nothing, x * sigmoid(x), or the product with or sum of another tensor."""


class FormedLinear(nn.Module):
    """Stands in for an `nn.Linear`; [..., in_features] -> [..., out_features].

    `swish`, `times` and `plus` are what networks do next, in the same pass over the output.
    """

    def __init__(self, linear: nn.Linear, numerics: Numerics) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, bias = linear.weight.data, None if linear.bias is None else linear.bias.data
        self.panels = PanelWeight.of(weight, bias) if _has_kernel(weight) else None
        """The weight as our kernel reads it, if that computes the product."""
        is_packed = self.panels is None and weight.device.type == "cpu" and packs(weight.dtype)
        self._is_sliced = self.panels is None and numerics == "invariant"
        self.min_rows = _PACKED_MIN_ROWS if is_packed and not self._is_sliced else 1
        if self.panels is not None:
            self._product: _Product = partial(_by_panels, self.panels)
        elif is_packed:
            self._product = _packed_product(weight, bias)
        else:
            self._product = lambda x, *end: _apply(functional.linear(x, weight, bias), *end)

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x, "none")

    def swish(self, x: Tensor) -> Tensor:
        return self._run(x, "swish")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """`other` is as the output."""
        return self._run(x, "mul", other)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`other` is as the output."""
        return self._run(x, "add", other)

    def _run(self, x: Tensor, epilogue: Epilogue, other: Tensor | None = None) -> Tensor:
        num_rows = x.numel() // self.in_features
        if not self._is_sliced and num_rows >= self.min_rows:
            return self._product(x, epilogue, other)
        rows = x.reshape(-1, self.in_features)
        others = None if other is None else other.reshape(-1, self.out_features)
        if self._is_sliced:
            out = self._in_slices(rows, epilogue, others)
        else:
            product = self._product(self._repeat(rows), "none", None)[:num_rows]
            out = _apply(product, epilogue, others)
        return out.view(*x.shape[:-1], self.out_features)

    def _in_slices(self, rows: Tensor, epilogue: Epilogue, others: Tensor | None) -> Tensor:
        num_rows = len(rows)
        num_slices = max(1, -(-num_rows // SLICE_ROWS))
        parts = _pad_rows(rows, num_slices * SLICE_ROWS).split(SLICE_ROWS)
        if others is None:
            out = [self._product(part, epilogue, None) for part in parts]
        else:
            beside = _pad_rows(others, num_slices * SLICE_ROWS).split(SLICE_ROWS)
            out = [self._product(*pair) for pair in zip(parts, repeat(epilogue), beside)]
        return torch.cat(out)[:num_rows]

    def _repeat(self, rows: Tensor) -> Tensor:
        """At least the fewest rows that the packed product is fast for, copies behind the real."""
        return rows.repeat(-(-self.min_rows // max(1, rows.shape[0])), 1) if len(rows) else rows


def _pad_rows(rows: Tensor, num_rows: int) -> Tensor:
    missing = num_rows - rows.shape[0]
    return functional.pad(rows, (0, 0, 0, missing)) if missing > 0 else rows


_Product = Callable[[Tensor, Epilogue, Tensor | None], Tensor]


def _has_kernel(weight: Tensor) -> bool:
    if weight.dtype == torch.float16:
        return weight.device.type == "cpu" and can_widen()
    return cpu_kernels.can_read(weight)


def _by_panels(weight: PanelWeight, x: Tensor, epilogue: Epilogue, other: Tensor | None) -> Tensor:
    """What is computed is in float32, what is given as x is."""
    rows = x.reshape(-1, x.shape[-1]).float().contiguous()
    out = rows.new_empty(len(rows), weight.num_outputs)
    beside = out if other is None else other.reshape(out.shape).float().contiguous()
    multiply(
        rows.numpy(), weight.panels, weight.bias, EPILOGUES[epilogue], beside.numpy(), out.numpy()
    )
    return out.view(*x.shape[:-1], weight.num_outputs).to(x.dtype)


def _packed_product(weight: Tensor, bias: Tensor | None) -> _Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), SLICE_ROWS)
    multiply_alone = torch.ops.mkldnn._linear_pointwise.default
    multiply_with = torch.ops.mkldnn._linear_pointwise.binary

    def product(x: Tensor, epilogue: Epilogue, other: Tensor | None) -> Tensor:
        if other is None:
            out: Tensor = multiply_alone(x, packed, bias, epilogue, [], "")
        else:
            out = multiply_with(x, other, packed, bias, epilogue)
        return out

    return product


def _apply(out: Tensor, epilogue: Epilogue, other: Tensor | None) -> Tensor:
    if other is None:
        return functional.silu(out) if epilogue == "swish" else out
    return out * other if epilogue == "mul" else out + other


def packs(dtype: torch.dtype) -> bool:
    """bfloat16 where the processor multiplies it; elsewhere oneDNN refuses it or is slow."""
    if not (
        torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32
