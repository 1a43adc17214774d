"""The linear layers of a loaded model, in one of two numeric forms.

On CPU in float32 the weights are packed once for oneDNN (the operator that torch.compile emits),
measured 1.3-3x faster than `F.linear` for 1-64 rows. `invariant` computes every row in a slice of
exactly `SLICE_ROWS` rows, so that its bits depend neither on the other rows nor on their number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config import Numerics

SLICE_ROWS = 16
FAST_MIN_ROWS = 4  # oneDNN takes longer for 1-3 rows than for 4


def use_form(model: nn.Module, numerics: Numerics) -> None:
    """Replaces every `nn.Linear` inside `model`, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, FormedLinear(child, numerics))


class FormedLinear(nn.Module):
    """Stands in for an `nn.Linear`; [..., in_features] -> [..., out_features]."""

    def __init__(self, linear: nn.Linear, numerics: Numerics) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._product, is_packed = _product_of(linear)
        self._is_invariant = numerics == "invariant"
        self._min_rows = FAST_MIN_ROWS if is_packed else 1

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        num_rows = rows.shape[0]
        if self._is_invariant:
            num_slices = max(1, -(-num_rows // SLICE_ROWS))
            slices = _pad_rows(rows, num_slices * SLICE_ROWS).split(SLICE_ROWS)
            out = torch.cat([self._product(part) for part in slices])
        else:
            out = self._product(rows if num_rows >= self._min_rows else self._repeat(rows))
        return out[:num_rows].view(*x.shape[:-1], self.out_features)

    def _repeat(self, rows: Tensor) -> Tensor:
        """At least the fewest rows that the packed product is fast for, copies behind the real."""
        return rows.repeat(-(-self._min_rows // max(1, rows.shape[0])), 1) if len(rows) else rows


def _pad_rows(rows: Tensor, num_rows: int) -> Tensor:
    missing = num_rows - rows.shape[0]
    return functional.pad(rows, (0, 0, 0, missing)) if missing > 0 else rows


def _product_of(linear: nn.Linear) -> tuple[Callable[[Tensor], Tensor], bool]:
    """rows -> rows @ weight.T + bias, and whether its weight is packed."""
    weight, bias = linear.weight.data, None if linear.bias is None else linear.bias.data
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not _has_onednn():
        return lambda rows: functional.linear(rows, weight, bias), False
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), SLICE_ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda rows: multiply(rows, packed, bias, "none", [], ""), True


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
