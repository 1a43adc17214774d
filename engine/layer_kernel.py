"""A decoder layer of Llama's form in two compiled calls, before and after its attention.

With few rows, starting torch's operators would take as long as what they compute. Float32 on a CPU;
weights may be in float16. Every row's bits are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.cpu_kernels import Floats, compiled, rms_norm, rotate
from engine.product_kernel import EPILOGUES, Panels, PanelWeight, multiply

_NONE, _SWISH, _MUL, _ADD = (EPILOGUES[name] for name in ("none", "swish", "mul", "add"))


@compiled
def _before(
    x: Floats, norm: Floats, epsilon: float, qkv: Panels, bias: Floats, cosine: Floats,
    sine: Floats, num_rotated: int, heads: Floats,
) -> None:  # fmt: skip
    """x [tokens, size] -> heads [tokens, queries' and keys' and values', dim], rotated."""
    normed = np.empty_like(x)
    rms_norm(x, norm, epsilon, normed)
    flat = heads.reshape(len(x), heads.shape[1] * heads.shape[2])
    multiply(normed, qkv, bias, _NONE, flat, flat)
    rotate(heads, num_rotated, cosine, sine)


@compiled
def _after(
    x: Floats, attended: Floats, y: Floats, out: Panels, out_bias: Floats, norm: Floats,
    epsilon: float, gate: Panels, gate_bias: Floats, up: Panels, up_bias: Floats, down: Panels,
    down_bias: Floats, width: int,
) -> None:  # fmt: skip
    """x and attended [tokens, size] -> y [tokens, size]; `width` is the perceptron's."""
    between, normed, wide = np.empty_like(x), np.empty_like(x), np.empty((len(x), width), x.dtype)
    multiply(attended, out, out_bias, _ADD, x, between)
    rms_norm(between, norm, epsilon, normed)
    multiply(normed, gate, gate_bias, _SWISH, wide, wide)
    multiply(normed, up, up_bias, _MUL, wide, wide)
    multiply(wide, down, down_bias, _ADD, between, y)


class LayerKernel:
    """One layer's weights."""

    def __init__(
        self, norms: Sequence[Floats], epsilons: Sequence[float], products: Sequence[PanelWeight]
    ) -> None:
        """Of attention and perceptron; queries and all, output, gate, up and down."""
        qkv, out, *mlp = products
        self._num_heads_values = qkv.num_outputs
        self._first = (norms[0], epsilons[0], qkv.panels, qkv.bias)
        self._second: Sequence[Any] = (
            out.panels, out.bias, norms[1], epsilons[1],
            *(side for weight in mlp for side in (weight.panels, weight.bias)), mlp[0].num_outputs,
        )  # fmt: skip

    def before(
        self, x: Tensor, head_dim: int, num_rotated: int, cosine: Tensor, sine: Tensor
    ) -> Tensor:
        """x [tokens, size] -> the heads of queries, keys and values [tokens, heads, head_dim].

        The first `num_rotated` are, by what `fused_layers.exchanging` makes.
        """
        heads = x.new_empty(len(x), self._num_heads_values // head_dim, head_dim)
        angles = (cosine.numpy()[:, 0], sine.numpy()[:, 0])
        _before(x.numpy(), *self._first, *angles, num_rotated, heads.numpy())
        return heads

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """x [tokens, size], attended [tokens, heads, head_dim] -> the layer's output, as x."""
        y = torch.empty_like(x)
        _after(x.numpy(), attended.reshape(len(x), -1).numpy(), y.numpy(), *self._second)
        return y
