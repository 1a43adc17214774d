"""The network of a head: decoder layers on the target's last hidden state.

Input i fuses the embedding of token i with the target's state of token i - 1 (zeros for i = 0), and
its output stands in for the state of token i: the target's own output layer reads the next token
off it, and further steps take it where the target's state is not known yet (EAGLE,
arXiv 2401.15077, section 4.1). Embedding and output layer are the target's, not weights of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from engine.drafters.shape import DrafterShape
from engine.fused_layers import LayerParts, linear_of

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [batch, heads, tokens, dim], k, v) -> [batch, tokens, heads, dim]"""


@dataclass(frozen=True, slots=True)
class SharedWeights:
    """What a head borrows of its target: the embedding, and the output layer [vocab, hidden].

    The output layer of a quantised target is in the bits of its weights.
    """

    embed: nn.Module
    output: Tensor

    @staticmethod
    def of(model: PreTrainedModel) -> SharedWeights:
        """Of a model whose linear layers were not replaced yet."""
        output = model.get_output_embeddings()
        assert isinstance(output, nn.Linear), "taken before the linear layers are replaced"
        return SharedWeights(model.get_input_embeddings(), output.weight.data)


class HeadModel(nn.Module):
    """See the module. This is its form in training; `engine.drafters.head_runner` serves it."""

    def __init__(self, shape: DrafterShape) -> None:
        super().__init__()
        size, eps = shape.hidden_size, shape.norm_eps
        self.shape = shape
        self.embedding_norm = nn.RMSNorm(size, eps)
        self.state_norm = nn.RMSNorm(size, eps)
        self.fuse = nn.Linear(2 * size, size, bias=False)
        self.layers = nn.ModuleList(HeadLayer(shape, index) for index in range(shape.num_layers))
        self.output_norm = nn.RMSNorm(size, eps)

    def forward(
        self, embedded: Tensor, states: Tensor, positions: Tensor, attend: Attend
    ) -> Tensor:
        """embedded, states [batch, tokens, hidden], positions [tokens] -> states, as these."""
        rotation = angles_at(positions, self.shape, embedded.dtype)
        x = self.fuse(self.joined(embedded, states))
        for layer in self.layers:
            x = layer(x, rotation, attend)
        out: Tensor = self.output_norm(x)
        return out

    def parts(self) -> list[LayerParts]:
        """Of the layers, sharing their weights."""
        return [layer.parts() for layer in self.layers if isinstance(layer, HeadLayer)]

    def joined(self, embedded: Tensor, states: Tensor) -> Tensor:
        """What is fused: [batch, tokens, hidden] each -> [batch, tokens, 2 hidden]."""
        return torch.cat([self.embedding_norm(embedded), self.state_norm(states)], -1)


class HeadLayer(nn.Module):
    """One decoder layer: grouped-query attention with rotary positions, and a gated MLP."""

    def __init__(self, shape: DrafterShape, index: int) -> None:
        super().__init__()
        self._index = index
        self._dim = shape.head_dim
        self._sizes = [shape.num_heads, shape.num_kv_heads, shape.num_kv_heads]
        size, width = shape.hidden_size, shape.intermediate_size
        self.attention_norm = nn.RMSNorm(size, shape.norm_eps)
        self.qkv = nn.Linear(size, sum(self._sizes) * self._dim, bias=False)
        self.out = nn.Linear(shape.num_heads * self._dim, size, bias=False)
        self.mlp_norm = nn.RMSNorm(size, shape.norm_eps)
        self.gate_up = nn.Linear(size, 2 * width, bias=False)
        self.down = nn.Linear(width, size, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        heads = self.qkv(self.attention_norm(x)).unflatten(-1, (-1, self._dim)).transpose(1, 2)
        q, k, v = heads.split(self._sizes, 1)
        attended = attend(self._index, _rotate(q, rotation), _rotate(k, rotation), v)
        x = x + self.out(attended.flatten(2))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        out: Tensor = x + self.down(functional.silu(gate) * up)
        return out

    def parts(self) -> LayerParts:
        """Sharing its weights."""
        num_heads, num_kv_heads, _ = self._sizes
        gate, up = self.gate_up.weight.data.chunk(2)
        return LayerParts(
            index=self._index,
            scale=self._dim**-0.5,
            head_dim=self._dim,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            attention_norm=self.attention_norm,
            qkv=self.qkv,
            out=self.out,
            mlp_norm=self.mlp_norm,
            gate=linear_of(gate),
            up=linear_of(up),
            down=self.down,
        )


def angles_at(positions: Tensor, shape: DrafterShape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles: [tokens, head_dim / 2] each."""
    steps = torch.arange(0, shape.head_dim, 2, device=positions.device) / shape.head_dim
    angles = positions[:, None].float() * shape.rope_theta**-steps
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
