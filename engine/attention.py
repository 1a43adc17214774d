"""Attention over paged KV, registered with transformers under `ATTENTION`.

One forward carries the new tokens of many sequences, packed into one row. Each layer writes their
keys and values into the cache, then attends per tile: a tile is a few query tokens of one sequence
with all of its keys. In `fast` form a tile is a sequence and tiles are padded to the longest; in
`invariant` form a tile is exactly 16 queries and keys come in multiples of 512 (the length of the
inner loop of torch's CPU kernel), so that every product has one shape and every row its own bits.

Keys that a query must not see are hidden by an additive mask. That hides every number, but not a
NaN or infinity, which a block may hold from its former user: 0 x NaN is NaN. A forward that ends in
a NaN is therefore repeated with care, the hidden keys and values being 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from engine.config import Numerics

ATTENTION = "hedgerow_paged"
_INVARIANT_QUERIES = 16
_INVARIANT_KEYS = 512
_CHEAP_KEYS = 511  # shorter sequences are padded to each other's length without a thought
_SHORT = 32  # new tokens up to which spans share a call in the fast form
_CHEAP_PADDING = 48  # query rows that cost less than a call of their own for single tokens


class UnsupportedAttention(Exception):
    """The model asks its attention for something that this one does not compute."""


@dataclass(frozen=True, slots=True)
class Span:
    """New tokens of one sequence: `num_new` of them, from position `start` on."""

    start: int
    num_new: int
    block_table: Sequence[int]

    @property
    def end(self) -> int:
        return self.start + self.num_new


class KVCache:
    """Keys and values of all layers: per layer two [num_blocks, block_size, heads, head_dim]."""

    def __init__(self, shapes: Sequence[tuple[Tensor, Tensor]], num_blocks: int, block_size: int):
        self.num_blocks, self.block_size = num_blocks, block_size
        self.layers = [
            tuple(t.new_zeros(num_blocks, block_size, t.shape[1], t.shape[3]) for t in pair)
            for pair in shapes
        ]

    def slots(self, span: Span) -> Tensor:
        """Cache slot of each new token of `span`: [num_new]."""
        positions = torch.arange(span.start, span.end)
        table = torch.tensor(span.block_table)
        return table[positions // self.block_size] * self.block_size + positions % self.block_size


class _Tiles:
    """Sequences whose queries are computed in one call; built once, used by every layer."""

    def __init__(self, spans: Sequence[Span], offsets: Sequence[int], cache: KVCache, form: _Form):
        device = cache.layers[0][0].device
        longest = max(span.num_new for span in spans)
        self.rows = form.queries or longest  # queries of a tile
        tiles_each = -(-longest // self.rows)
        self.num_tiles = len(spans) * tiles_each
        num_keys = -(-max(span.end for span in spans) // form.keys) * form.keys
        self.num_keys = num_keys
        num_blocks = -(-num_keys // cache.block_size)
        tables = torch.zeros(len(spans), num_blocks, dtype=torch.long)
        query, position = [], []
        for i, (span, offset) in enumerate(zip(spans, offsets, strict=True)):
            used = min(-(-span.end // cache.block_size), num_blocks)
            tables[i, :used] = torch.tensor(span.block_table[:used])
            steps = torch.arange(tiles_each * self.rows).clamp_(max=span.num_new - 1)
            query.append(steps + offset)
            position.append(steps + span.start)
        self.blocks = tables.flatten().to(device)
        self.num_spans = len(spans)
        self.query = torch.cat(query).to(device)  # [tiles * rows], token of the packed forward
        self._position = torch.cat(position).view(-1, 1, self.rows, 1).to(device)
        self._masks: dict[int | None, Tensor] = {}
        keep = torch.cat(
            [
                torch.arange(span.num_new) + i * tiles_each * self.rows
                for i, span in enumerate(spans)
            ]
        )
        self.keep = keep.to(device)  # rows that are real, in packed order

    def mask(self, window: int | None, like: Tensor) -> Tensor:
        """Additive causal mask, also of a sliding window: [tiles, 1, rows, num_keys]."""
        if window not in self._masks:
            key = torch.arange(self.num_keys, device=like.device)
            hidden = key > self._position
            if window is not None:
                hidden |= key <= self._position - window
            zeros = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            self._masks[window] = zeros.masked_fill_(hidden, float("-inf"))
        return self._masks[window]

    def attend(
        self, q: Tensor, sides: tuple[Tensor, ...], scale: float, window: int | None, careful: bool
    ) -> Tensor:
        """q [tokens, heads, dim], keys and values of a layer -> [real rows, heads, value dim]."""
        tiles = q.index_select(0, self.query).view(-1, self.rows, *q.shape[1:]).transpose(1, 2)
        k, v = (self._gather(side) for side in sides)
        mask = self.mask(window, q)
        out = _attention(tiles, k, v, mask, scale)
        if careful:
            harmful = _harmful(k, v, mask)
            k, v = (side.masked_fill(harmful[:, None, :, None], 0.0) for side in (k, v))
            sees_one = ((mask == 0.0) & harmful[:, None, None, :]).any(-1, keepdim=True)
            out = torch.where(sees_one, out, _attention(tiles, k, v, mask, scale))
        return out.transpose(1, 2).flatten(0, 1).index_select(0, self.keep)

    def _gather(self, side: Tensor) -> Tensor:
        """Keys or values of every tile: [tiles, heads, num_keys, dim]; one span's tiles share."""
        found = side.index_select(0, self.blocks)
        found = found.view(self.num_spans, -1, *side.shape[2:])[:, : self.num_keys].transpose(1, 2)
        return found.expand(self.num_tiles, -1, -1, -1)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=scale, enable_gqa=True
    )


def _harmful(k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Keys that no query of a tile sees, and those that are not finite: [tiles, num_keys]."""
    finite = k.isfinite().all(-1).all(1) & v.isfinite().all(-1).all(1)
    return ~finite | (mask != 0.0).all(2)[:, 0]


@dataclass(frozen=True, slots=True)
class _Form:
    """Queries of a tile (None: as many as the longest span has) and the multiple keys come in."""

    queries: int | None
    keys: int

    @property
    def short(self) -> int:
        """Spans of at most this many new tokens are computed together, a tile each."""
        return self.queries or _SHORT


def _form_of(numerics: Numerics, block_size: int) -> _Form:
    if numerics == "invariant":
        return _Form(_INVARIANT_QUERIES, _INVARIANT_KEYS)
    return _Form(None, block_size)


class AttentionBatch:
    """What the attention of one forward needs to know; handed through the model as a keyword.

    `careful` computes with hidden keys and values of 0, at twice the cost and to the same bits.
    """

    def __init__(self, spans: Sequence[Span], cache: KVCache, numerics: Numerics) -> None:
        self.cache = cache
        self.careful = False
        self._has_nan: Tensor | None = None
        device = cache.layers[0][0].device
        self.slots = torch.cat([cache.slots(span) for span in spans]).to(device)
        form = _form_of(numerics, cache.block_size)
        offsets, total = [], 0
        for span in spans:
            offsets.append(total)
            total += span.num_new
        groups = _groups(spans, form)
        self._tiles = [
            _Tiles([spans[i] for i in group], [offsets[i] for i in group], cache, form)
            for group in groups
        ]
        order = torch.cat([torch.arange(offsets[i], offsets[i] + spans[i].num_new)
                           for group in groups for i in group])  # fmt: skip
        self._restore = order.argsort().to(device) if len(groups) > 1 else None

    @property
    def has_nan(self) -> bool:
        """Whether a token came to be NaN: it still is in the last layer, wherever it began."""
        return self._has_nan is not None and bool(self._has_nan)

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """q, k, v [1, heads, tokens, dim] -> [1, tokens, heads, value dim].

        Tokens behind those of the spans are padding: nothing is stored of them, and they get 0.
        """
        keys, values = self.cache.layers[layer]
        num_tokens = self.slots.shape[0]
        packed, k, v = (side[0, :, :num_tokens].transpose(0, 1) for side in (q, k, v))
        keys.view(-1, *keys.shape[2:]).index_copy_(0, self.slots, k)
        values.view(-1, *values.shape[2:]).index_copy_(0, self.slots, v)
        sides, careful = (keys, values), self.careful
        parts = [tiles.attend(packed, sides, scale, window, careful) for tiles in self._tiles]
        out = parts[0] if self._restore is None else torch.cat(parts)[self._restore]
        if layer == len(self.cache.layers) - 1:
            self._has_nan = out.sum().isnan()
        num_padding = q.shape[2] - num_tokens
        return functional.pad(out, (0, 0, 0, 0, 0, num_padding))[None] if num_padding else out[None]


def _groups(spans: Sequence[Span], form: _Form) -> list[list[int]]:
    """Indices of spans that share a call: short ones of like length, each long one alone.

    Keys are padded to the longest of a group, so a group spans a factor of two at most, or what is
    cheap anyway. So are queries, unless tiles have a size of their own: single tokens are then kept
    apart from drafts where they are many.
    """
    together: dict[int, list[int]] = defaultdict(list)
    alone = []
    for i, span in enumerate(spans):
        if span.num_new <= form.short:
            together[max(_CHEAP_KEYS, span.end - 1).bit_length()].append(i)
        else:
            alone.append([i])
    groups = list(together.values())
    if form.queries is None:
        groups = [part for group in groups for part in _without_padding(spans, group)]
    return [*groups, *alone]


def _without_padding(spans: Sequence[Span], group: list[int]) -> list[list[int]]:
    longest = max(spans[i].num_new for i in group)
    single = [i for i in group if spans[i].num_new == 1]
    if len(single) == len(group) or len(single) * (longest - 1) <= _CHEAP_PADDING:
        return [group]
    return [single, [i for i in group if spans[i].num_new > 1]]


class ShapeProbe:
    """Stands in for an AttentionBatch in the first forward: records what each layer sends."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        if layer in self.layers:
            raise UnsupportedAttention("a layer of it attends more than once for a token")
        self.layers[layer] = (k, v)
        return q.new_zeros(1, q.shape[2], q.shape[1], v.shape[3])


_KNOWN = {"sliding_window", "position_ids", "use_cache", "is_causal", "cache_position"}


def paged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    batch: AttentionBatch | ShapeProbe,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **extra: object,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer; raises UnsupportedAttention."""
    asked = {name for name, value in extra.items() if value is not None and value is not False}
    unknown = sorted(asked - _KNOWN)
    if unknown or attention_mask is not None:
        raise UnsupportedAttention(f"its attention needs {', '.join(unknown) or 'a mask'}")
    if not getattr(module, "is_causal", True):
        raise UnsupportedAttention("its attention looks ahead: it is an encoder")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = module.layer_idx
    assert isinstance(layer, int), "transformers numbers its attention layers"
    return batch.attend(layer, query, key, value, scale, sliding_window), None


AttentionInterface.register(ATTENTION, paged_attention)
