"""Decoder layers of Llama's form in a third of transformers' operators.

A step of a small model spends as long on starting operators as on the few that do the work. What
follows a product (an activation, a sum) happens in the product's own pass, queries, keys and values
are one product, and queries and keys are rotated together. Layers of any other class stay as they
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaModel,
    LlamaRMSNorm,
)

from engine import cpu_kernels
from engine.config import Numerics
from engine.kv_cache import Attends
from engine.layer_kernel import LayerKernel
from engine.linear import FormedLinear


def fuse_layers(model: PreTrainedModel, numerics: Numerics) -> None:
    """Replaces the layers of a Llama, in place; those that were replaced stay."""
    base = model.base_model
    if type(base) is not LlamaModel or model.config.hidden_act not in ("silu", "swish"):
        return
    if not isinstance(base.rotary_emb, _Rotation):
        base.set_submodule("rotary_emb", _Rotation(base.rotary_emb))
    for index, layer in enumerate(base.layers):  # one by one: a whole model is not there twice
        if isinstance(layer, LlamaDecoderLayer):
            base.layers[index] = FusedLayer(_parts_of(layer), numerics)


@dataclass(frozen=True, slots=True)
class LayerParts:
    """A decoder layer taken apart. `qkv` gives the heads of queries, keys and values in turn."""

    index: int
    scale: float
    head_dim: int
    num_heads: int
    num_kv_heads: int
    attention_norm: nn.RMSNorm
    qkv: nn.Linear
    out: nn.Linear
    mlp_norm: nn.RMSNorm
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear


class FusedLayer(nn.Module):
    """A decoder layer of Llama's form over paged keys and values."""

    def __init__(self, parts: LayerParts, numerics: Numerics) -> None:
        super().__init__()
        self._index, self._scale, self._head_dim = parts.index, parts.scale, parts.head_dim
        self._num_heads, self._num_kv_heads = parts.num_heads, parts.num_kv_heads
        norms = Norm(parts.attention_norm), Norm(parts.mlp_norm)
        self._attention_norm, self._mlp_norm = norms
        self._qkv, self._out, self._gate, self._up, self._down = (
            FormedLinear(linear, numerics)
            for linear in (parts.qkv, parts.out, parts.gate, parts.up, parts.down)
        )
        products = (self._qkv, self._out, self._gate, self._up, self._down)
        self._kernel = _kernel_of(norms, products)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        position_embeddings: tuple[Tensor, Tensor],
        batch: Attends,
        **unused: object,
    ) -> Tensor:
        """[1, tokens, hidden_size] -> the same, as transformers calls it."""
        x, num_rotated = hidden_states[0], self._num_heads + self._num_kv_heads
        if self._kernel is None:
            heads = self._qkv(self._attention_norm(x)).view(len(x), -1, self._head_dim)
            rotated = _rotated(heads[:, :num_rotated], *position_embeddings)
        else:
            size = self._head_dim
            heads = self._kernel.before(x, size, num_rotated, *position_embeddings)
            rotated = heads[:, :num_rotated]
        q, k = rotated[:, : self._num_heads], rotated[:, self._num_heads :]
        attended = batch.attend(self._index, q, k, heads[:, num_rotated:], self._scale)
        if self._kernel is not None:
            return self._kernel.after(x, attended)[None]
        x = self._out.plus(attended.reshape(len(x), -1), x)
        normed = self._mlp_norm(x)
        wide = self._up.times(normed, self._gate.swish(normed))
        return self._down.plus(wide, x)[None]


def _kernel_of(norms: Sequence[Norm], products: Sequence[FormedLinear]) -> LayerKernel | None:
    """None where torch's operators compute a part of the layer."""
    arrays = [norm.array for norm in norms if norm.array is not None]
    held = [product.panels for product in products if product.panels is not None]
    if len(arrays) < len(norms) or len(held) < len(products):
        return None
    return LayerKernel(arrays, [norm.epsilon for norm in norms], held)


class Norm(nn.Module):
    """Stands in for a root-mean-square norm; [..., size] -> the same."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        super().__init__()
        assert norm.eps is not None, "models say what theirs is"
        self._shape, self._weight, self.epsilon = norm.normalized_shape, norm.weight, norm.eps
        self.array = None
        """The weight as our kernel reads it, if that computes the norm."""
        if cpu_kernels.can_read(norm.weight):
            self.array = norm.weight.detach().numpy()

    def forward(self, x: Tensor) -> Tensor:
        if self.array is None:
            return functional.rms_norm(x, self._shape, self._weight, self.epsilon)
        rows = x.reshape(-1, x.shape[-1])
        out = torch.empty_like(rows)
        cpu_kernels.rms_norm(rows.numpy(), self.array, self.epsilon, out.numpy())
        return out.view(x.shape)


def exchanging(cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Of each token's angles, [tokens, head_dim] each -> `position_embeddings` of a fused layer.

    The sine's first half gets negative, so that a head x is rotated to
    x * cosine + (its halves exchanged) * sine.
    """
    first, second = sine.chunk(2, -1)
    return cosine[:, None], torch.cat([-first, second], -1)[:, None]


def _rotated(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """[tokens, heads, head_dim] -> the same."""
    return torch.addcmul(heads * cosine, heads.roll(heads.shape[-1] // 2, -1), sine)


class _Rotation(nn.Module):
    """Stands in for transformers' own, whose result only the layers see."""

    def __init__(self, angles: nn.Module) -> None:
        super().__init__()
        self._angles = angles

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        cosine, sine = self._angles(x, position_ids)
        return exchanging(cosine[0], sine[0])


def _parts_of(layer: LlamaDecoderLayer) -> LayerParts:
    attention, mlp = layer.self_attn, layer.mlp
    index, head_dim = attention.layer_idx, attention.head_dim
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return LayerParts(
        index=index,
        scale=attention.scaling,
        head_dim=head_dim,
        num_heads=attention.q_proj.out_features // head_dim,
        num_kv_heads=attention.k_proj.out_features // head_dim,
        attention_norm=_norm(layer.input_layernorm),
        qkv=_stacked(projections),
        out=attention.o_proj,
        mlp_norm=_norm(layer.post_attention_layernorm),
        gate=mlp.gate_proj,
        up=mlp.up_proj,
        down=mlp.down_proj,
    )


def _norm(norm: LlamaRMSNorm) -> nn.RMSNorm:
    made = nn.RMSNorm(norm.weight.shape[0], norm.variance_epsilon, device="meta")
    made.weight = norm.weight
    return made


def _stacked(linears: tuple[nn.Linear, ...]) -> nn.Linear:
    """One layer whose output is theirs, one after another."""
    weight = torch.cat([each.weight.data for each in linears])
    has_bias = linears[0].bias is not None
    return linear_of(weight, torch.cat([each.bias.data for each in linears]) if has_bias else None)


def linear_of(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A layer with these weights, [out_features, in_features] and [out_features]."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made
