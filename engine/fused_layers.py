"""Decoder layers of Llama's form in a third of transformers' operators.

A step of a small model spends as long on starting operators as on the few that do the work. What
follows a product (an activation, a sum) happens in the product's own pass, queries, keys and values
are one product, and queries and keys are rotated together. Layers of any other class stay as they
are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

from engine.attention import AttentionBatch, ShapeProbe
from engine.config import Numerics
from engine.linear import FormedLinear


def fuse_layers(model: PreTrainedModel, numerics: Numerics) -> None:
    """Replaces the layers of a Llama, in place; those that were replaced stay."""
    base = model.base_model
    if type(base) is not LlamaModel or model.config.hidden_act not in ("silu", "swish"):
        return
    layers = [layer for layer in base.layers if isinstance(layer, LlamaDecoderLayer)]
    if not layers:
        return
    base.set_submodule("rotary_emb", _Rotation(base.rotary_emb))
    base.layers = nn.ModuleList(FusedLayer(layer, numerics) for layer in layers)


class _Rotation(nn.Module):
    """Cosine and signed sine of each token's angles, [tokens, 1, head_dim] each.

    The sine's first half is negative, so that a head x is rotated to
    x * cosine + (its halves exchanged) * sine.
    """

    def __init__(self, angles: nn.Module) -> None:
        super().__init__()
        self._angles = angles

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        cosine, sine = (side[0, :, None] for side in self._angles(x, position_ids))
        first, second = sine.chunk(2, -1)
        return cosine, torch.cat([-first, second], -1)


class FusedLayer(nn.Module):
    """Stands in for a `LlamaDecoderLayer`, and has its weights."""

    def __init__(self, layer: LlamaDecoderLayer, numerics: Numerics) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self._index = attention.layer_idx
        self._scale = attention.scaling
        self._head_dim = attention.head_dim
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._sizes = [each.out_features // self._head_dim for each in projections]
        self._attention_norm, self._mlp_norm = (
            _Norm(norm) for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        self._qkv, self._out, self._gate, self._up, self._down = (
            FormedLinear(linear, numerics)
            for linear in (
                _stacked(projections), attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj
            )
        )  # fmt: skip

    def forward(
        self,
        hidden_states: Tensor,
        *,
        position_embeddings: tuple[Tensor, Tensor],
        batch: AttentionBatch | ShapeProbe,
        **unused: object,
    ) -> Tensor:
        """[1, tokens, hidden_size] -> the same, as transformers calls it."""
        x = hidden_states[0]
        heads = self._qkv(self._attention_norm(x)).view(len(x), -1, self._head_dim)
        num_queries, num_keys, num_values = self._sizes
        rotated = _rotate(heads[:, : num_queries + num_keys], *position_embeddings)
        q, k = rotated[:, :num_queries], rotated[:, num_queries:]
        attended = batch.attend(self._index, q, k, heads[:, -num_values:], self._scale)
        x = self._out.plus(attended.reshape(len(x), -1), x)
        normed = self._mlp_norm(x)
        wide = self._up.times(normed, self._gate.swish(normed))
        return self._down.plus(wide, x)[None]


class _Norm:
    """x -> x / sqrt(mean of x squared + eps) * weight"""

    def __init__(self, norm: Any) -> None:
        self._weight, self._eps = norm.weight.data, norm.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self._weight.shape, self._weight, self._eps)


def _rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """[tokens, heads, head_dim] -> the same."""
    exchanged = heads.roll(heads.shape[-1] // 2, -1)
    return torch.addcmul(heads * cosine, exchanged, sine)


def _stacked(linears: tuple[nn.Linear, ...]) -> nn.Linear:
    """One layer whose output is theirs, one after another."""
    out_features = sum(linear.out_features for linear in linears)
    has_bias = linears[0].bias is not None
    stacked = nn.Linear(linears[0].in_features, out_features, has_bias, device="meta")
    stacked.weight = nn.Parameter(torch.cat([each.weight.data for each in linears]), False)
    if has_bias:
        stacked.bias = nn.Parameter(torch.cat([each.bias.data for each in linears]), False)
    return stacked
