"""Runs a head over a paged KV cache of its own, beside the target.

The counterpart of `engine.runner` for a network that also reads states: extends sequences by
tokens, the target's states known or the head's own in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.attention import new_batch
from engine.config import Numerics
from engine.drafters.head_model import HeadModel, SharedWeights, angles_at
from engine.fused_layers import FusedLayer, Norm, exchanging
from engine.kv_cache import Attends, KVCache, Span
from engine.linear import FormedLinear, fewest_rows
from engine.packed_batch import Packer
from engine.quantisation import drafters_dtype, hold_weights_in
from engine.reduced_vocabulary import ReducedVocabulary
from engine.runner import Extension, Logits


@dataclass(frozen=True, slots=True)
class HeadRoom:
    """Blocks for verified tokens, then blocks to draft in, which belong to no sequence."""

    num_blocks: int
    block_size: int
    num_scratch_blocks: int


class HeadRunner:
    """See the module. Takes the model over, which is of no use afterwards."""

    def __init__(
        self,
        model: HeadModel,
        shared: SharedWeights,
        vocabulary: ReducedVocabulary,
        room: HeadRoom,
        numerics: Numerics,
    ) -> None:
        weight = shared.output
        self.vocabulary = vocabulary
        self.room = room
        self._embed = shared.embed
        self._numerics: Numerics = numerics
        self._device = weight.device
        dtype = next(shared.embed.parameters()).dtype
        model = model.to(weight.device, dtype).eval()
        held = drafters_dtype(dtype, weight.device)
        hold_weights_in(held, model)
        self._layers = [FusedLayer(parts, numerics) for parts in model.parts()]
        self._fuse = FormedLinear(model.fuse, numerics)
        del model.layers, model.fuse  # the others have their weights
        for name in ("embedding_norm", "state_norm", "output_norm"):
            setattr(model, name, Norm(getattr(model, name)))
        self._model = model
        ids = torch.tensor(vocabulary.ids, device=weight.device)
        output = nn.Linear(weight.shape[1], len(vocabulary), bias=False, device="meta")
        output.weight = nn.Parameter(weight.index_select(0, ids).to(held), requires_grad=False)
        self._output = FormedLinear(output, numerics)
        shape = model.shape
        empty = weight.new_empty(1, shape.num_kv_heads, shape.head_dim, dtype=dtype)
        num_blocks = room.num_blocks + room.num_scratch_blocks
        self._cache = KVCache([(empty, empty)] * shape.num_layers, num_blocks, room.block_size)
        self._packer = Packer.find(self._cache, numerics, shape.num_heads)
        self._min_tokens = fewest_rows(self._fuse, self._output, *self._layers)

    @torch.inference_mode()
    def extend(self, extensions: Sequence[Extension], states: Tensor) -> Tensor:
        """One forward over all new tokens, and `states` of the token before each of them.

        [num_tokens, hidden_size] -> the same, the head's own states of these tokens.
        """
        with self._cache.threads():
            return self._extended(extensions, states)

    def _extended(self, extensions: Sequence[Extension], states: Tensor) -> Tensor:
        spans = [Span(e.start, len(e.tokens), e.block_table) for e in extensions]
        tokens = [token for e in extensions for token in e.tokens]
        positions = [p for span in spans for p in range(span.start, span.end)]
        num_tokens = len(tokens)
        padding = max(0, self._min_tokens - num_tokens)
        if padding:
            tokens, positions = tokens + [0] * padding, positions + [0] * padding
            states = torch.cat([states, states.new_zeros(padding, states.shape[1])])
        batch: Attends
        if self._packer is None:
            batch = new_batch(spans, self._cache, self._numerics, padding)
        else:
            batch = self._packer.exact(spans, tokens)
        embedded = self._embed(torch.tensor([tokens], device=self._device))
        at = torch.tensor(positions, device=self._device)
        angles = angles_at(at, self._model.shape, embedded.dtype)
        rotation = exchanging(*(torch.cat([half, half], -1) for half in angles))
        x = self._fuse(self._model.joined(embedded, states[None]))
        for layer in self._layers:
            x = layer(x, position_embeddings=rotation, batch=batch)
        out: Tensor = self._model.output_norm(x)
        return out[0, :num_tokens]

    @torch.inference_mode()
    def logits(self, states: Tensor) -> Logits:
        """What follows the tokens of `states` [num_rows, hidden_size]."""
        return Logits(self._output(states), states, self.vocabulary)

    @torch.inference_mode()
    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies the keys and values of whole blocks."""
        if not sources:
            return
        source = torch.tensor(sources, device=self._device)
        target = torch.tensor(targets, device=self._device)
        for sides in self._cache.layers:
            for side in sides:
                side.index_copy_(0, target, side.index_select(0, source))
