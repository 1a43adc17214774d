"""Attention over paged keys and values, by torch's operators or a kernel for CPUs.

One forward carries the new tokens of many sequences, packed into one row. Each layer writes their
keys and values into the cache, then attends per tile: a tile is a few query tokens of one sequence
with all of its keys. In `fast` form a tile is a sequence and tiles are padded to the longest; in
`invariant` form a tile is exactly 16 queries and keys come in multiples of 512 (the length of the
inner loop of torch's CPU kernel), so that every product has one shape and every row its own bits.

Keys that a query must not see are hidden by an additive mask. That hides every number, but not a
NaN or infinity, which a block may hold from its former user: 0 x NaN is NaN. A forward that ends in
a NaN is therefore repeated with care, the hidden keys and values being 0.

In float32 on a CPU, `engine.span_attention` takes the place of all this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.config import Numerics
from engine.kv_cache import Indices, KVCache, Span
from engine.span_attention import SpanBatch

_INVARIANT_QUERIES = 16
_INVARIANT_KEYS = 512
_CHEAP_KEYS = 511  # shorter sequences are padded to each other's length without a thought
_SHORT = 32  # new tokens up to which spans share a call in the fast form
_CHEAP_PADDING = 48  # query rows that cost less than a call of their own for single tokens


class _Rows:
    """Which rows of a tensor to take, in which order; neighbours in order are not copied."""

    def __init__(self, rows: Indices, device: torch.device) -> None:
        first = int(rows[0])
        are_neighbours = np.array_equal(rows, np.arange(first, first + len(rows)))
        self._slice = slice(first, first + len(rows)) if are_neighbours else None
        self._rows = None if are_neighbours else _tensor(rows, device)

    def of(self, x: Tensor) -> Tensor:
        return x[self._slice] if self._rows is None else x.index_select(0, self._rows)


def _tensor(numbers: Indices, device: torch.device) -> Tensor:
    return torch.from_numpy(numbers).to(device)


class _Tiles:
    """Sequences whose queries are computed in one call; built once, used by every layer."""

    def __init__(self, spans: Sequence[Span], offsets: Indices, cache: KVCache, form: _Form):
        device = cache.layers[0][0].device
        longest = max(span.num_new for span in spans)
        self._num_rows = form.queries or longest  # queries of a tile
        rows_each = -(-longest // self._num_rows) * self._num_rows
        self._num_spans = len(spans)
        self._num_tiles = len(spans) * rows_each // self._num_rows
        self._num_keys = -(-max(span.end for span in spans) // form.keys) * form.keys
        num_blocks = -(-self._num_keys // cache.block_size)
        tables = np.zeros((len(spans), num_blocks), dtype=np.int64)
        for table, span in zip(tables, spans, strict=True):
            used = min(-(-span.end // cache.block_size), num_blocks)
            table[:used] = span.block_table[:used]
        last = np.array([span.num_new - 1 for span in spans])[:, None]
        steps = np.minimum(np.arange(rows_each), last)
        starts = np.array([span.start for span in spans])[:, None]
        self._blocks = _Rows(tables.ravel(), device)
        self._queries = _Rows((steps + offsets[:, None]).ravel(), device)
        self._position = _tensor(steps + starts, device).view(-1, 1, self._num_rows, 1)
        self._masks: dict[tuple[int | None, int], Tensor] = {}
        self._shares_keys = form.queries is None  # tiles of one size have a form of their own
        self.num_rows = len(spans) * rows_each
        """Rows of the output, real ones and padding."""
        self.real_rows = np.concatenate(
            [i * rows_each + np.arange(span.num_new) for i, span in enumerate(spans)]
        )

    def mask(self, window: int | None, like: Tensor, num_sharing: int = 1) -> Tensor:
        """Additive causal mask, also of a sliding window: [tiles, 1, rows * num_sharing, keys].

        A query's row comes `num_sharing` times: for each of the heads that share keys.
        """
        key = (window, num_sharing)
        if key not in self._masks and num_sharing > 1:
            self._masks[key] = self.mask(window, like).repeat_interleave(num_sharing, 2)
        elif key not in self._masks:
            self._masks[key] = self._causal(window, like)
        return self._masks[key]

    def _causal(self, window: int | None, like: Tensor) -> Tensor:
        key = torch.arange(self._num_keys, device=like.device)
        hidden = key > self._position
        if window is not None:
            hidden |= key <= self._position - window
        zeros = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
        return zeros.masked_fill_(hidden, float("-inf"))

    def attend(
        self, q: Tensor, sides: tuple[Tensor, ...], scale: float, window: int | None, careful: bool
    ) -> Tensor:
        """q [tokens, heads, dim], keys and values of a layer -> [num_rows, heads, value dim]."""
        tiles = self._queries.of(q).view(-1, self._num_rows, *q.shape[1:])
        k, v = (self._gather(side) for side in sides)
        masks = self.mask(window, q, q.shape[1] // k.shape[1] if self._shares_keys else 1)
        out = _attention(tiles, k, v, masks, scale)
        if careful:
            mask = self.mask(window, q)
            harmful = _harmful(k, v, mask)
            k, v = (side.masked_fill(harmful[:, None, :, None], 0.0) for side in (k, v))
            sees_one = ((mask == 0.0) & harmful[:, None, None, :]).any(-1)[:, 0, :, None, None]
            out = torch.where(sees_one, out, _attention(tiles, k, v, masks, scale))
        return out.flatten(0, 1)

    def _gather(self, side: Tensor) -> Tensor:
        """Keys or values of every tile: [tiles, heads, num_keys, dim]; one span's tiles share."""
        found = self._blocks.of(side).view(self._num_spans, -1, *side.shape[2:])[
            :, : self._num_keys
        ]
        return found.transpose(1, 2).expand(self._num_tiles, -1, -1, -1)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """q [tiles, rows, heads, dim] -> [tiles, rows, heads, value dim].

    Where the mask has rows for heads that share keys, these heads are the rows of one product,
    which reads the keys once: half the time with few queries (one in bfloat16, 2/7 on a CPU).
    """
    num_tiles, num_rows, num_heads, dim = q.shape
    num_sharing = mask.shape[2] // num_rows
    if num_sharing == 1:
        out = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k, v, attn_mask=mask, scale=scale, enable_gqa=True
        )
        return out.transpose(1, 2)
    together = q.view(num_tiles, num_rows, -1, num_sharing, dim).transpose(1, 2).flatten(2, 3)
    out = functional.scaled_dot_product_attention(together, k, v, mask, scale=scale)
    apart = out.view(num_tiles, k.shape[1], num_rows, num_sharing, v.shape[3])
    return apart.transpose(1, 2).reshape(num_tiles, num_rows, num_heads, v.shape[3])


def _harmful(k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Keys that no query of a tile sees, and those that are not finite: [tiles, num_keys]."""
    finite = k.isfinite().all(-1).all(1) & v.isfinite().all(-1).all(1)
    return ~finite | (mask != 0.0).all(2)[:, 0]


@dataclass(frozen=True, slots=True)
class _Form:
    """Queries of a tile (None: as many as the longest span has), and the multiple keys come in."""

    queries: int | None
    keys: int

    @property
    def short(self) -> int:
        """Spans of at most this many new tokens are computed together, a tile each."""
        return self.queries or _SHORT


def new_batch(
    spans: Sequence[Span], cache: KVCache, numerics: Numerics, num_padding: int = 0
) -> AttentionBatch | SpanBatch:
    """`num_padding` tokens follow those of the spans: nothing is stored of them."""
    if cache.has_kernel and not num_padding:
        return SpanBatch(spans, cache)
    return AttentionBatch(spans, cache, numerics, num_padding)


class AttentionBatch:
    """What the attention of one forward needs to know; handed through the model as a keyword.

    `careful` computes with hidden keys and values of 0, at twice the cost and to the same bits.
    """

    def __init__(
        self, spans: Sequence[Span], cache: KVCache, numerics: Numerics, num_padding: int = 0
    ) -> None:
        """See `new_batch`."""
        self.cache = cache
        self.careful = False
        self._has_nan: Tensor | None = None
        device = cache.layers[0][0].device
        self.slots = _tensor(np.concatenate([cache.slots(span) for span in spans]), device)
        form = (
            _Form(_INVARIANT_QUERIES, _INVARIANT_KEYS) if numerics == "invariant"
            else _Form(None, cache.block_size)
        )  # fmt: skip
        ends = np.cumsum([span.num_new for span in spans])
        offsets = ends - [span.num_new for span in spans]
        self._tiles: list[_Tiles] = []
        rows = np.zeros(ends[-1] + num_padding, dtype=np.int64)  # of all tiles' outputs, by token
        num_rows = 0
        for group in _groups(spans, form):
            tiles = _Tiles([spans[i] for i in group], offsets[group], cache, form)
            tokens = np.concatenate([np.arange(offsets[i], ends[i]) for i in group])
            rows[tokens] = num_rows + tiles.real_rows
            num_rows += tiles.num_rows
            self._tiles.append(tiles)
        self._rows = _Rows(rows, device)

    @property
    def has_nan(self) -> bool:
        """Whether a token came to be NaN: it still is in the last layer, wherever it began."""
        return self._has_nan is not None and bool(self._has_nan)

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None
    ) -> Tensor:
        """q, k, v [tokens, heads, dim] -> [tokens, heads, value dim]."""
        keys, values = self.cache.layers[layer]
        num_tokens = self.slots.shape[0]
        keys.view(-1, *keys.shape[2:]).index_copy_(0, self.slots, k[:num_tokens])
        values.view(-1, *values.shape[2:]).index_copy_(0, self.slots, v[:num_tokens])
        sides, careful = (keys, values), self.careful
        parts = [tiles.attend(q, sides, scale, window, careful) for tiles in self._tiles]
        out = self._rows.of(parts[0] if len(parts) == 1 else torch.cat(parts))
        if layer == len(self.cache.layers) - 1:
            self._has_nan = out.sum().isnan()
        return out


def _groups(spans: Sequence[Span], form: _Form) -> list[list[int]]:
    """Indices of spans that share a call: short ones of like length, long ones each alone.

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
