"""The linear layers of a loaded model, in one of two numeric forms.

On CPU the weights are packed once for oneDNN (the operator that torch.compile emits), measured
1.3-3x faster than `F.linear` for 1-64 rows in float32, 1.3-1.8x in bfloat16; those in float16 are
FBGEMM's (`engine.quantisation`). `invariant` computes every row in a slice of exactly `SLICE_ROWS`
rows, so that its bits depend neither on the other rows nor on their number. `fast` leaves few rows
in float32 to a kernel that reads the weight as it was loaded, at the speed of the memory; then both
forms of the weight are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine import cpu_kernels
from engine.config import Numerics
from engine.quantisation import can_widen, widening_product

SLICE_ROWS = 16
_PACKED_MIN_ROWS = 4  # oneDNN takes longer for 1-3 rows than for 4
_KERNEL_MAX_ROWS = 6  # from 8 on oneDNN is as fast


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
        self._product, is_packed = _product_of(linear)
        self._is_invariant = numerics == "invariant"
        self._few = None
        if not self._is_invariant and cpu_kernels.can_read(linear.weight):
            self._few = _FewRows(linear)
        is_padded = is_packed and not self._is_invariant and self._few is None
        self.min_rows = _PACKED_MIN_ROWS if is_padded else 1

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
        if self._few is not None and num_rows <= _KERNEL_MAX_ROWS:
            return self._few(x, epilogue, other)
        if not self._is_invariant and num_rows >= self.min_rows:
            return self._product(x, epilogue, other)
        rows = x.reshape(-1, self.in_features)
        others = None if other is None else other.reshape(-1, self.out_features)
        if self._is_invariant:
            out = self._in_slices(rows, epilogue, others)
        else:
            out = _apply(
                self._product(self._repeat(rows), "none", None)[:num_rows], epilogue, others
            )
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


class _FewRows:
    """The product by `cpu_kernels.multiply`, of a weight as it was loaded."""

    def __init__(self, linear: nn.Linear) -> None:
        weight, bias = linear.weight.detach(), linear.bias
        self._weight = weight.contiguous().numpy()
        self._bias = (weight.new_empty(0) if bias is None else bias.detach()).numpy()

    def __call__(self, x: Tensor, epilogue: Epilogue, other: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = x.new_empty(rows.shape[0], self._weight.shape[0])
        beside = out if other is None else other.reshape(out.shape)
        cpu_kernels.multiply(
            rows.numpy(), self._weight, self._bias, cpu_kernels.EPILOGUES[epilogue],
            beside.numpy(), out.numpy(),
        )  # fmt: skip
        return out.view(*x.shape[:-1], out.shape[1])


def _product_of(linear: nn.Linear) -> tuple[_Product, bool]:
    """x -> x @ weight.T + bias and its epilogue, and whether its weight is packed for oneDNN."""
    weight, bias = linear.weight.data, None if linear.bias is None else linear.bias.data
    if weight.device.type == "cpu" and weight.dtype == torch.float16 and can_widen():
        widening = widening_product(weight, bias)
        return lambda x, *end: _apply(widening(x), *end), False
    if weight.device.type != "cpu" or not packs(weight.dtype):
        return lambda x, *end: _apply(functional.linear(x, weight, bias), *end), False
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), SLICE_ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    multiply_with = torch.ops.mkldnn._linear_pointwise.binary

    def product(x: Tensor, epilogue: Epilogue, other: Tensor | None) -> Tensor:
        if other is None:
            out: Tensor = multiply(x, packed, bias, epilogue, [], "")
        else:
            out = multiply_with(x, other, packed, bias, epilogue)
        return out

    return product, True


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
