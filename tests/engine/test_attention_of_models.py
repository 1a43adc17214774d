"""Models with paged attention say what the stock models say, whatever a batch or a block holds."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from kernel_support import needs_kernels
from numpy.typing import NDArray
from tiny_models import FAMILIES, FLOAT16_WEIGHTS, VOCAB, both_forms, tiny_model

from engine.config import Numerics
from engine.models import build_runner, prepare_model
from engine.runner import Extension, ModelRunner

BLOCK_SIZE = 4
Rows = NDArray[np.float32]


def runner(family: str, numerics: Numerics = "invariant", fill: float = 0.0) -> ModelRunner:
    """Over a cache whose blocks hold `fill` of former users."""
    made = build_runner(prepare_model(tiny_model(family), "cpu"), 512, BLOCK_SIZE, numerics)
    for side in itertools.chain(*made._cache.layers):
        side.fill_(fill)
    return made


def logits(model: ModelRunner, extensions: Sequence[Extension], which: int) -> Rows:
    """Logits of all tokens of extension `which`: [tokens, vocab]."""
    found = model.extend(extensions)
    first = sum(extension.num_logits for extension in extensions[:which])
    return np.stack([found.row(first + i) for i in range(len(extensions[which].tokens))])


@pytest.mark.parametrize(
    ("family", "numerics"),
    [
        *((family, "invariant") for family in FAMILIES),
        pytest.param("llama", "fast", marks=needs_kernels),
        pytest.param(FLOAT16_WEIGHTS, "fast", marks=needs_kernels),
    ],
)
def test_a_models_logits_have_the_same_bits_in_every_chunk_and_batch(
    family: str, numerics: Numerics
) -> None:
    rng = random.Random(family)
    tokens = [rng.randrange(VOCAB) for _ in range(45)]
    blocks = list(range(12))
    whole_rows = logits(runner(family, numerics), [Extension(tokens, 0, blocks, 45)], 0)
    for _ in range(6):
        model, start, table = runner(family, numerics), 0, rng.sample(range(60), 12)
        while start < 45:
            end = min(45, start + rng.choice([1, 2, 5, 17]))
            num_others = rng.randrange(5)
            batch = [
                Extension(
                    [rng.randrange(VOCAB) for _ in range(rng.randint(1, 9))],
                    0,
                    range(70 + 3 * i, 73 + 3 * i),
                    rng.randrange(2),
                )
                for i in range(num_others)
            ]
            place = rng.randint(0, num_others)
            batch.insert(place, Extension(tokens[start:end], start, table, end - start))
            np.testing.assert_array_equal(logits(model, batch, place), whole_rows[start:end])
            start = end


@both_forms
@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_logits_are_those_of_the_stock_model(family: str, numerics: Numerics) -> None:
    tokens = torch.randint(3, VOCAB, (1, 50), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = tiny_model(family)(input_ids=tokens).logits[0]
    model, ids = runner(family, numerics), tokens[0].tolist()
    parts = [(0, 33), (33, 34), (34, 50)]
    found = np.concatenate(
        [
            logits(model, [Extension(ids[start:end], start, range(13), end - start)], 0)
            for start, end in parts
        ]
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-4)


@both_forms
@pytest.mark.parametrize("fill", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_no_number_in_a_block_is_never_seen(
    family: str, fill: float, numerics: Numerics
) -> None:
    """Also behind the shorter of two texts, where the table is padded with block 0."""
    rng = random.Random(family)
    texts = [[rng.randrange(VOCAB) for _ in range(length)] for length in (45, 9)]
    tables = [range(1, 13), range(20, 23)]
    clean, dirty = (runner(family, numerics, value) for value in (0.0, fill))
    for spans in itertools.pairwise([(0, 0), (3, 1), (36, 2), (37, 8), (45, 9)]):
        batch = [
            Extension(text[start:end], start, table, end - start)
            for text, table, start, end in zip(texts, tables, *spans, strict=True)
        ]
        for which in range(2):
            expected = logits(clean, batch, which)
            assert np.isfinite(expected).all()
            np.testing.assert_array_equal(logits(dirty, batch, which), expected)


def poisonous(numerics: Numerics) -> tuple[ModelRunner, int]:
    """A model and a token of which all that it computes is NaN."""
    model, token = tiny_model("llama"), VOCAB - 1
    with torch.no_grad():
        model.state_dict()["model.embed_tokens.weight"][token] = math.nan
    return build_runner(prepare_model(model, "cpu"), 512, BLOCK_SIZE, numerics), token


@both_forms
def test_a_broken_token_is_seen_by_those_behind_it_alone(numerics: Numerics) -> None:
    """And once it is written over, as a rejected draft is, by nobody."""
    broken, bad = poisonous(numerics)
    sound, table, other = runner("llama", numerics), range(1, 4), Extension([9, 8], 0, [9], 2)
    batch, poisoned = ([Extension([5, 6, third, 8, 9], 0, table, 5), other] for third in (7, bad))
    expected, found = logits(sound, batch, 0), logits(broken, poisoned, 0)
    np.testing.assert_array_equal(found[:2], expected[:2])
    assert np.isnan(found[2:]).all()
    np.testing.assert_array_equal(logits(broken, poisoned, 1), logits(sound, batch, 1))
    later = [Extension([7], 2, table, 1), Extension([8], 1, [9], 1)]
    np.testing.assert_array_equal(logits(broken, later, 0), logits(sound, later, 0))
