"""Attention over paged keys and values as one Triton kernel: no gather, no mask, any batch.

A program computes the queries of one tile in all heads that share keys, over a part of these keys:
few tiles leave a device idle, so that keys are divided until there are enough programs, and a
second kernel puts the parts together. Sums are float32. What a query must not see has no influence
on it, not even a NaN: keys are hidden by their place, and a value that is no number makes the score
of its key NaN and itself 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.packed_batch import Sides, Tiles

_ENOUGH_PROGRAMS = 512
_MOST_PARTS = 32
_NO_WINDOW = 1 << 30


def attend_to_blocks(
    q: Tensor, sides: Sides, tiles: Tiles, scale: float, window: int | None
) -> Tensor:
    """See engine.packed_batch.Kernel."""
    keys, values = sides
    num_tokens, num_heads, dim = q.shape
    block_size, num_kv_heads, value_dim = values.shape[1:]
    num_sharing = num_heads // num_kv_heads
    num_parts = _num_parts(len(tiles.each) * num_kv_heads)
    q = q if q.stride(2) == 1 else q.contiguous()
    kind = q.dtype if num_parts == 1 else torch.float32
    out = torch.empty(num_tokens, num_heads, num_parts, value_dim, dtype=kind, device=q.device)
    sums = torch.empty(num_tokens, num_heads, num_parts, dtype=torch.float32, device=q.device)
    width = max(16, triton.next_power_of_2(dim))
    value_width = max(16, triton.next_power_of_2(value_dim))
    with torch.cuda.device_of(q):
        _attend[(len(tiles.each), num_kv_heads, num_parts)](
            q, keys, values, out, sums, tiles.each, tiles.tables,
            scale, window or _NO_WINDOW, q.stride(0), q.stride(1),
            NUM_SHARING=num_sharing, NUM_KV_HEADS=num_kv_heads, BLOCK_SIZE=block_size,
            DIM=dim, WIDTH=width, VALUE_DIM=value_dim, VALUE_WIDTH=value_width,
            ROWS=max(16, triton.next_power_of_2(tiles.num_tokens * num_sharing)),
            KEYS=64 if width <= 128 and q.element_size() == 2 else 32,
            IS_DIVIDED=num_parts > 1, num_stages=2,
        )  # fmt: skip
        if num_parts == 1:
            return out[:, :, 0]
        whole = torch.empty(num_tokens, num_heads, value_dim, dtype=q.dtype, device=q.device)
        _join[(num_tokens * num_heads,)](
            out, sums, whole, VALUE_DIM=value_dim, VALUE_WIDTH=value_width, NUM_PARTS=num_parts
        )
    return whole


def _num_parts(num_programs: int) -> int:
    """Of the keys, a power of two; it depends on the shape of the batch alone."""
    wanted = _ENOUGH_PROGRAMS // num_programs
    return min(_MOST_PARTS, 1 << max(0, wanted.bit_length() - 1))


@triton.jit
def _attend(
    q, keys, values, out, sums, tiles, tables,
    scale, window, q_token_stride, q_head_stride,
    NUM_SHARING: tl.constexpr, NUM_KV_HEADS: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    DIM: tl.constexpr, WIDTH: tl.constexpr, VALUE_DIM: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, IS_DIVIDED: tl.constexpr,
):  # fmt: skip
    """One tile, one head of keys, one part of them: [ROWS, KEYS] scores at a time."""
    tile = tiles + tl.program_id(0) * 4
    head, part, num_parts = tl.program_id(1), tl.program_id(2), tl.num_programs(2)
    num_tokens = tl.load(tile + 1).to(tl.int32)
    if num_tokens == 0:
        return
    start = tl.load(tile + 2).to(tl.int32)
    table = tables + tl.load(tile + 3)
    token = tl.arange(0, ROWS) // NUM_SHARING
    q_head = head * NUM_SHARING + tl.arange(0, ROWS) % NUM_SHARING
    row = tl.load(tile) + token
    is_row = token < num_tokens
    dim, value_dim = tl.arange(0, WIDTH), tl.arange(0, VALUE_WIDTH)
    query = tl.load(
        q + row[:, None] * q_token_stride + q_head[:, None] * q_head_stride + dim[None, :],
        mask=is_row[:, None] & (dim < DIM)[None, :],
        other=0.0,
    )
    at = (start + token)[:, None]
    end = start + num_tokens
    first = tl.maximum(start - window + 1, 0)
    share = tl.cdiv(tl.cdiv(end - first, num_parts), KEYS) * KEYS
    first += part * share
    end = tl.minimum(first + share, end)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, VALUE_WIDTH], tl.float32)
    for next_key in range(first, end, KEYS):
        key = next_key + tl.arange(0, KEYS)
        is_key = key < end
        block = tl.load(table + key // BLOCK_SIZE, mask=is_key, other=0)
        place = (block * BLOCK_SIZE + key % BLOCK_SIZE) * NUM_KV_HEADS + head
        k = tl.load(
            keys + place[None, :] * DIM + dim[:, None],
            mask=is_key[None, :] & (dim < DIM)[:, None],
            other=0.0,
        )
        v = tl.load(
            values + place[:, None] * VALUE_DIM + value_dim[None, :],
            mask=is_key[:, None] & (value_dim < VALUE_DIM)[None, :],
            other=0.0,
        )
        is_number = tl.abs(v.to(tl.float32)) < float("inf")
        flaw = tl.where(tl.min(is_number.to(tl.int32), 1) == 1, 0.0, float("nan"))
        sees = (key[None, :] <= at) & (key[None, :] > at - window) & is_key[None, :]
        score = tl.dot(query, k, input_precision="ieee") * scale + flaw[None, :]
        score = tl.where(sees, score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp(score - base[:, None])
        shrinks = tl.exp(peak - base)
        v = tl.where(is_number, v, 0.0).to(v.dtype)
        total = total * shrinks + tl.sum(weight, 1)
        mixed = mixed * shrinks[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        peak = higher
    is_empty = total == 0.0
    total = tl.where(is_empty, 1.0, total)
    place = (row * (NUM_KV_HEADS * NUM_SHARING) + q_head) * num_parts + part
    tl.store(
        out + place[:, None] * VALUE_DIM + value_dim[None, :],
        (mixed / total[:, None]).to(out.dtype.element_ty),
        mask=is_row[:, None] & (value_dim < VALUE_DIM)[None, :],
    )
    if IS_DIVIDED:
        found = tl.where(is_empty, float("-inf"), peak + tl.log(total))
        tl.store(sums + place, found, mask=is_row)


@triton.jit
def _join(
    parts, sums, out,
    VALUE_DIM: tl.constexpr, VALUE_WIDTH: tl.constexpr, NUM_PARTS: tl.constexpr,
):  # fmt: skip
    """The parts of one token's head, by the logarithms of the sums of their weights."""
    row = tl.program_id(0).to(tl.int64)
    place = row * NUM_PARTS + tl.arange(0, NUM_PARTS)
    dim = tl.arange(0, VALUE_WIDTH)
    is_dim = dim < VALUE_DIM
    log_sum = tl.load(sums + place)
    weight = tl.exp(log_sum - tl.max(log_sum, 0))
    weight /= tl.sum(weight, 0)
    part = tl.load(parts + place[:, None] * VALUE_DIM + dim[None, :], mask=is_dim[None, :])
    mixed = tl.sum(part * weight[:, None], 0)
    tl.store(out + row * VALUE_DIM + dim, mixed.to(out.dtype.element_ty), mask=is_dim)
