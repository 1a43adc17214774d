"""Kernels compute what torch does, and rows of the exact ones do not depend on the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine import cpu_kernels
from engine.attention import AttentionBatch
from engine.config import Numerics
from engine.fused_layers import Norm
from engine.kv_cache import KVCache, Span
from engine.linear import Epilogue, FormedLinear

BLOCK_SIZE = 4
NO_BIAS = np.empty(0, np.float32)

pytestmark = pytest.mark.skipif(
    not cpu_kernels.are_there(),
    reason="no TBB for this platform, so that torch's operators are used",
)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 6, 9])
@pytest.mark.parametrize("num_outputs", [1, 31, 32, 70])
@pytest.mark.parametrize("epilogue", cpu_kernels.EPILOGUES)
def test_a_product_with_its_epilogue_is_torchs(
    num_rows: int, num_outputs: int, epilogue: Epilogue
) -> None:
    x, weight, bias = _random(num_rows, 50), _random(num_outputs, 50), _random(num_outputs)
    other, out = _random(num_rows, num_outputs), torch.empty(num_rows, num_outputs)
    cpu_kernels.multiply(
        x.numpy(), weight.numpy(), bias.numpy(), cpu_kernels.EPILOGUES[epilogue],
        other.numpy(), out.numpy(),
    )  # fmt: skip
    product = functional.linear(x, weight, bias)
    wanted = {
        "none": product,
        "swish": functional.silu(product),
        "mul": product * other,
        "add": product + other,
    }[epilogue]
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=2e-5)


def test_swish_of_what_exceeds_the_exponential_is_0() -> None:
    out = np.empty((1, 1), np.float32)
    x = np.full((1, 1), -200.0, np.float32)
    cpu_kernels.multiply(x, np.ones((1, 1), np.float32), NO_BIAS, 1, out, out)
    assert out[0, 0] == 0.0


def test_a_nan_stays_one() -> None:
    x = np.array([[1.0, np.nan], [1.0, 2.0]], np.float32)
    out = np.empty((2, 1), np.float32)
    cpu_kernels.multiply(x, np.ones((1, 2), np.float32), NO_BIAS, 0, out, out)
    assert np.isnan(out[0, 0])
    assert out[1, 0] == 3.0


def test_few_rows_go_to_the_kernel_and_many_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = FormedLinear(nn.Linear(8, 8), "fast")
    seen: list[int] = []
    monkeypatch.setattr(cpu_kernels, "multiply", lambda x, *others: seen.append(len(x)))
    with torch.inference_mode():
        for num_rows in (1, 6, 7, 64):
            layer(_random(num_rows, 8))
    assert seen == [1, 6]


def test_exact_products_never_go_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = FormedLinear(nn.Linear(8, 8), "invariant")
    monkeypatch.delattr(cpu_kernels, "multiply")
    with torch.inference_mode():
        assert layer(_random(1, 8)).shape == (1, 8)


@pytest.mark.parametrize("num_rows", [1, 3, 40])
def test_a_norm_is_torchs_and_a_row_has_its_own_bits(num_rows: int) -> None:
    norm = nn.RMSNorm(70, 1e-5)
    nn.init.normal_(norm.weight)
    x = _random(num_rows, 70)
    with torch.inference_mode():
        out = Norm(norm)(x)
        torch.testing.assert_close(out, norm(x), rtol=1e-5, atol=1e-6)
        assert torch.equal(out[-1], Norm(norm)(x[-1]))


def _cache() -> KVCache:
    made = KVCache([(torch.zeros(1, 2, 16), torch.zeros(1, 2, 16))], 40, BLOCK_SIZE)
    for side in made.layers[0]:
        side.copy_(_random(*side.shape))
    return made


def _attend(
    cache: KVCache, spans: Sequence[Span], new: Sequence[tuple[Tensor, ...]], numerics: Numerics,
    window: int | None = None,
) -> list[Tensor]:  # fmt: skip
    """Of each span its own rows."""
    batch = AttentionBatch(spans, cache, numerics)
    q, k, v = (torch.cat(side) for side in zip(*new, strict=True))
    return list(batch.attend(0, q, k, v, 0.25, window).split([span.num_new for span in spans]))


def _new(num_new: int) -> tuple[Tensor, ...]:
    return tuple(_random(num_new, heads, 16) for heads in (6, 2, 2))


def _spans() -> list[Span]:
    """In blocks that lie anywhere, none of them another's."""
    free = iter(np.random.default_rng(0).permutation(40).tolist())
    sizes = [(0, 1), (9, 2), (30, 3), (17, 4), (3, 1), (12, 17), (0, 20)]
    return [
        Span(start, new, [next(free) for _ in range(-(-(start + new) // BLOCK_SIZE))])
        for start, new in sizes
    ]


@pytest.mark.parametrize("window", [None, 1, 5, 100])
@pytest.mark.parametrize("numerics", ["fast", "invariant"])
def test_attention_by_the_kernel_is_that_of_tiles(window: int | None, numerics: Numerics) -> None:
    spans = _spans()
    new = [_new(span.num_new) for span in spans]
    cache, other = _cache(), _cache()
    other.has_kernel = False
    assert cache.has_kernel
    by_kernel = _attend(cache, spans, new, numerics, window)
    by_tiles = _attend(other, spans, new, numerics, window)
    for mine, wanted in zip(by_kernel, by_tiles, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


def test_a_tokens_attention_has_its_own_bits_whatever_comes_with_it() -> None:
    spans = _spans()
    new = [_new(span.num_new) for span in spans]
    together = _attend(_cache(), spans, new, "invariant")
    for span, own, mine in zip(spans, new, together, strict=True):
        cache = _cache()
        rows = []
        for i in range(span.num_new):
            step = Span(span.start + i, 1, span.block_table)
            rows += _attend(cache, [step], [tuple(side[i : i + 1] for side in own)], "invariant")
        assert torch.equal(torch.cat(rows), mine)


def test_what_a_block_holds_beyond_the_sequence_is_not_touched() -> None:
    clean, dirty = _cache(), _cache()
    for side in dirty.layers[0]:
        side[5, 2:] = float("nan")
        side[7] = float("nan")
    span, new = Span(8, 2, [3, 4, 5, 7]), _new(2)
    assert torch.equal(
        _attend(clean, [span], [new], "fast")[0], _attend(dirty, [span], [new], "fast")[0]
    )
