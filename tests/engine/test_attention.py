"""Paged attention is attention; in `invariant` a row's bits depend on its own past alone."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import both_forms
from torch import Tensor, nn

from engine import cpu_kernels
from engine.attention import new_batch
from engine.attention_interface import UnsupportedAttention, paged_attention
from engine.config import Numerics
from engine.kv_cache import KVCache, Span

HEADS, KV_HEADS, DIM = 4, 2, 16
BLOCK_SIZE = 4
SCALE = 0.2
every_window = pytest.mark.parametrize("window", [None, 1, 2, 8, 100])


@pytest.fixture(params=["by kernel", "by tiles"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 has a kernel here, and tiles elsewhere."""
    if request.param == "by tiles":
        monkeypatch.setattr(cpu_kernels, "can_read", lambda tensor: False)


class Layer(nn.Module):
    layer_idx = 0


class Text:
    """Queries, keys and values of one sequence, [heads, tokens, dim], and its blocks."""

    def __init__(self, seed: int, length: int, first_block: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.length = length
        self.q, self.k, self.v = (
            torch.randn(heads, length, DIM, generator=generator)
            for heads in (HEADS, KV_HEADS, KV_HEADS)
        )
        blocks = list(range(first_block, first_block + -(-length // BLOCK_SIZE)))
        random.Random(seed).shuffle(blocks)
        self.blocks = blocks

    def expected(self, window: int | None) -> Tensor:
        """[tokens, heads, dim] in float64, with the whole matrix of scores."""
        k, v = (side.double().repeat_interleave(HEADS // KV_HEADS, 0) for side in (self.k, self.v))
        scores = self.q.double() @ k.transpose(1, 2) * SCALE
        distance = torch.arange(self.length)[:, None] - torch.arange(self.length)
        visible = (distance >= 0) & (distance < (window or self.length))
        weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
        return (weights @ v).transpose(0, 1)


def empty_cache(num_blocks: int, fill: float = 0.0) -> KVCache:
    shape = torch.full((1, KV_HEADS, DIM), fill)
    cache = KVCache([(shape, shape)], num_blocks, BLOCK_SIZE)
    for side in cache.layers[0]:
        side.fill_(fill)
    return cache


def attend(
    parts: Sequence[tuple[Text, int, int]], cache: KVCache, numerics: Numerics, window: int | None
) -> list[Tensor]:
    """One forward over tokens [start, end) of each text: their outputs [tokens, heads, dim]."""
    spans = [Span(start, end - start, text.blocks) for text, start, end in parts]
    q, k, v = (
        torch.cat([getattr(text, side)[:, start:end] for text, start, end in parts], 1)[None]
        for side in "qkv"
    )
    batch = new_batch(spans, cache, numerics)
    out, _ = paged_attention(
        Layer(), q, k, v, None, batch=batch, scaling=SCALE, sliding_window=window
    )
    return list(out[0].split([span.num_new for span in spans]))


def whole(text: Text, numerics: Numerics, window: int | None, cache: KVCache) -> Tensor:
    (out,) = attend([(text, 0, text.length)], cache, numerics, window)
    return out


@both_forms
@every_window
def test_attention_of_a_whole_text_is_the_definitions(
    numerics: Numerics, window: int | None
) -> None:
    for length in (1, 2, 15, 16, 17, 40, 100):
        text = Text(length, length, 3)
        out = whole(text, numerics, window, empty_cache(40))
        torch.testing.assert_close(out.double(), text.expected(window), atol=1e-5, rtol=1e-4)


@both_forms
@every_window
def test_texts_of_one_forward_do_not_see_each_other(numerics: Numerics, window: int | None) -> None:
    texts = [Text(i, length, 30 * i) for i, length in enumerate((50, 3, 1, 33, 70))]
    cache = empty_cache(150)
    attend([(text, 0, text.length - 1) for text in texts if text.length > 1], cache, numerics, None)
    parts = [(text, max(0, text.length - n), text.length) for n, text in enumerate(texts, 1)]
    for out, (text, start, end) in zip(attend(parts, cache, numerics, window), parts, strict=True):
        expected = text.expected(window)[start:end]
        torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-4)


@every_window
@pytest.mark.parametrize("draft_length", [1, 20])
def test_a_draft_among_many_single_tokens_is_attended_to_as_alone(
    draft_length: int, window: int | None
) -> None:
    """A short one shares their call, a long one would pad them too far."""
    texts = [Text(i, 25 + i % 5, 10 * i) for i in range(12)]
    cache = empty_cache(120)
    attend([(text, 0, text.length - 1) for text in texts], cache, "fast", None)
    parts = [(text, text.length - 1, text.length) for text in texts]
    for drafting in (3, 8):
        start = texts[drafting].length - 1 - draft_length
        parts[drafting] = (texts[drafting], start, texts[drafting].length)
    for out, (text, start, end) in zip(attend(parts, cache, "fast", window), parts, strict=True):
        expected = text.expected(window)[start:end]
        torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-4)


@both_forms
def test_what_a_block_held_before_is_never_seen(numerics: Numerics) -> None:
    text = Text(1, 21, 2)
    clean, dirty = (whole(text, numerics, 8, empty_cache(12, fill)) for fill in (0.0, 1e4))
    assert torch.equal(clean, dirty)


def in_chunks(text: Text, cuts: Sequence[int], cache: KVCache, window: int | None) -> Tensor:
    chunks = itertools.pairwise([0, *cuts, text.length])
    return torch.cat(
        [attend([(text, start, end)], cache, "invariant", window)[0] for start, end in chunks]
    )


@pytest.mark.parametrize("window", [None, 8])
def test_bits_do_not_depend_on_the_chunks(window: int | None) -> None:
    text = Text(7, 61, 1)
    expected = whole(text, "invariant", window, empty_cache(20))
    rng = random.Random(0)
    for _ in range(12):
        cuts = sorted(rng.sample(range(1, 61), rng.randint(1, 30)))
        assert torch.equal(in_chunks(text, cuts, empty_cache(20), window), expected)
    one_by_one = in_chunks(text, range(1, 61), empty_cache(20), window)
    assert torch.equal(one_by_one, expected)


@pytest.mark.parametrize("window", [None, 600])
def test_bits_do_not_depend_on_how_many_keys_are_padded(window: int | None) -> None:
    """A prompt of 1,100 tokens in one forward attends with more padding than in three."""
    text = Text(8, 1100, 0)
    expected = whole(text, "invariant", window, empty_cache(280))
    for cuts in ([500, 520], [511, 512, 513], [16, 1023, 1025, 1099]):
        assert torch.equal(in_chunks(text, cuts, empty_cache(280), window), expected)


def test_bits_do_not_depend_on_the_company() -> None:
    text = Text(9, 40, 0)
    expected = whole(text, "invariant", None, empty_cache(100))[20:37]
    for num_others in (1, 3, 9):
        others = [Text(50 + i, 5 + 3 * i, 10 + 9 * i) for i in range(num_others)]
        for place in (0, num_others // 2, num_others):
            cache = empty_cache(100)
            attend([(text, 0, 20)], cache, "invariant", None)
            parts = [(other, 0, other.length) for other in others]
            parts.insert(place, (text, 20, 37))
            assert torch.equal(attend(parts, cache, "invariant", None)[place], expected)


def test_bits_do_not_depend_on_the_number_of_the_block() -> None:
    text = Text(10, 37, 0)
    expected = whole(text, "invariant", None, empty_cache(64))
    text.blocks = [50 - block for block in text.blocks]
    assert torch.equal(whole(text, "invariant", None, empty_cache(64)), expected)


def test_a_rejected_draft_is_written_over() -> None:
    text, wrong = Text(11, 30, 0), Text(12, 30, 0)
    wrong.blocks = text.blocks
    cache = empty_cache(20)
    attend([(text, 0, 12)], cache, "invariant", None)
    attend([(wrong, 12, 25)], cache, "invariant", None)
    (out,) = attend([(text, 12, 30)], cache, "invariant", None)
    assert torch.equal(out, whole(text, "invariant", None, empty_cache(20))[12:])


@pytest.mark.parametrize(
    ("extra", "named"), [({"softcap": 30.0}, "softcap"), ({"s_aux": torch.ones(4)}, "s_aux")]
)
def test_what_is_not_computed_is_refused_by_name(extra: dict[str, Any], named: str) -> None:
    text = Text(1, 4, 0)
    batch = new_batch([Span(0, 4, text.blocks)], empty_cache(4), "fast")
    with pytest.raises(UnsupportedAttention, match=named):
        paged_attention(
            Layer(), text.q[None], text.k[None], text.v[None], None, batch=batch, **extra
        )


def test_a_mask_of_the_models_own_is_refused() -> None:
    text = Text(1, 4, 0)
    batch = new_batch([Span(0, 4, text.blocks)], empty_cache(4), "fast")
    with pytest.raises(UnsupportedAttention, match="mask"):
        paged_attention(
            Layer(), text.q[None], text.k[None], text.v[None], torch.zeros(1), batch=batch
        )
