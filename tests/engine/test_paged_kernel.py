"""The kernel of paged attention computes attention: for any batch, over whatever blocks hold."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
import torch
from kernels import DEVICE, attend_by_rows, needs_triton
from torch import Tensor

from engine.kv_cache import KVCache, Span
from engine.packed_batch import Kernel, Packer

pytestmark = needs_triton
BLOCK_SIZE, NUM_BLOCKS = 4, 120
SCALE = 0.3


needs_products_of_bfloat16 = pytest.mark.skipif(
    DEVICE == "cpu", reason="Triton's interpreter multiplies no bfloat16"
)


def kernel() -> Kernel:
    from engine.paged_kernel import attend_to_blocks

    return attend_to_blocks


def use_parts(num_parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts take the interpreter long."""
    monkeypatch.setattr("engine.paged_kernel._num_parts", lambda num_programs: num_parts)


@dataclass(frozen=True, slots=True)
class Heads:
    """Of a model."""

    num_heads: int
    num_kv_heads: int
    dim: int
    value_dim: int


FORMS = {
    "grouped": Heads(4, 2, 16, 16),
    "three to one": Heads(9, 3, 24, 24),
    "each its own": Heads(2, 2, 16, 16),
    "one for all": Heads(5, 1, 32, 16),
}


@dataclass(frozen=True, slots=True)
class Case:
    """New tokens of some sequences whose former ones are cached, with all that was drawn."""

    spans: list[Span]
    cache: KVCache
    q: Tensor
    k: Tensor
    v: Tensor

    def run(self, attend: Kernel, window: int | None, tile_tokens: int) -> Tensor:
        packer = Packer(self.cache, attend, tile_tokens)
        batch = packer.exact(self.spans, [0] * len(self.q))
        return batch.attend(0, self.q, self.k, self.v, SCALE, window)


def make_case(seed: int, heads: Heads, dtype: torch.dtype = torch.float32) -> Case:
    """Plain tokens, drafts and prefill chunks over a cache of random numbers."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    free = rng.sample(range(NUM_BLOCKS), NUM_BLOCKS)
    spans = []
    for num_new in rng.choices([1, 1, 2, 6, 17, 30], k=rng.randint(1, 5)):
        start = rng.choice([0, 1, 7, 40, 70])
        num_blocks = -(-(start + num_new) // BLOCK_SIZE)
        spans.append(Span(start, num_new, [free.pop() for _ in range(num_blocks)]))
    sizes = (heads.num_kv_heads, heads.dim), (heads.num_kv_heads, heads.value_dim)
    shapes = [torch.empty(1, *size, dtype=dtype, device=DEVICE) for size in sizes]
    cache = KVCache([(shapes[0], shapes[1])], NUM_BLOCKS, BLOCK_SIZE)
    for side in cache.layers[0]:
        side.normal_()
    num_tokens = sum(span.num_new for span in spans)
    q, k, v = (
        torch.randn(num_tokens, *size, dtype=torch.float32).to(DEVICE, dtype)
        for size in ((heads.num_heads, heads.dim), *sizes)
    )
    return Case(spans, cache, q, k, v)


def spoil(case: Case, value: float) -> None:
    """Fills all places of the cache that no token of the case has."""
    used: set[int] = set()
    for span in case.spans:
        used |= {
            span.block_table[at // BLOCK_SIZE] * BLOCK_SIZE + at % BLOCK_SIZE
            for at in range(span.end)
        }
    places = torch.tensor(sorted(set(range((NUM_BLOCKS + 1) * BLOCK_SIZE)) - used), device=DEVICE)
    for side in case.cache.layers[0]:
        side.view(-1, *side.shape[2:]).index_fill_(0, places, value)


@pytest.mark.parametrize("num_parts", [1, 4])
@pytest.mark.parametrize("window", [None, 1, 5, 64, 1000])
@pytest.mark.parametrize("form", FORMS)
def test_the_kernel_computes_attention(
    form: str, window: int | None, num_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(num_parts, monkeypatch)
    case, tile_tokens = make_case(window or 0, FORMS[form]), 16
    expected = case.run(attend_by_rows, window, tile_tokens)
    found = case.run(kernel(), window, tile_tokens)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("tile_tokens", [4, 7, 30])
def test_the_size_of_tiles_does_not_matter(
    tile_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(2, monkeypatch)
    case = make_case(6, FORMS["grouped"])
    expected = case.run(attend_by_rows, 9, tile_tokens)
    torch.testing.assert_close(case.run(kernel(), 9, tile_tokens), expected, atol=2e-6, rtol=2e-5)


def test_keys_are_divided_where_programs_are_few() -> None:
    from engine import paged_kernel

    parts = [paged_kernel._num_parts(num) for num in (1, 16, 17, 100, 512, 5000)]
    assert parts == [32, 32, 16, 4, 1, 1]


@pytest.mark.parametrize(
    ("dtype", "step"),
    [
        pytest.param(torch.bfloat16, 2**-7, marks=needs_products_of_bfloat16),
        (torch.float16, 2**-10),
    ],
)
def test_sums_are_float32_in_every_precision(
    dtype: torch.dtype, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is off by more than what rounding weights and outputs makes."""
    use_parts(2, monkeypatch)
    case = make_case(5, FORMS["grouped"], dtype)
    found = case.run(kernel(), None, 16)
    assert found.dtype == dtype
    sides = tuple(side.float() for side in case.cache.layers[0])
    case.cache.layers[0] = sides
    wide = Case(case.spans, case.cache, case.q.float(), case.k.float(), case.v.float())
    expected = wide.run(attend_by_rows, None, 16)
    torch.testing.assert_close(found.float(), expected, atol=2 * step, rtol=2 * step)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_a_block_holds_of_former_users_is_never_seen(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(2, monkeypatch)
    case = make_case(2, FORMS["grouped"])
    expected = case.run(kernel(), None, 16)
    spoil(case, value)
    assert torch.equal(case.run(kernel(), None, 16), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["k", "v"])
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # numpy's, interpreting
def test_a_broken_token_is_seen_by_those_behind_it_alone(
    side: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(2, monkeypatch)
    case = one_draft(9, 20)
    expected = case.run(kernel(), None, 16)
    getattr(case, side)[7, 1, 3] = value
    found = case.run(kernel(), None, 16)
    assert torch.equal(found[:7], expected[:7])
    assert torch.equal(found[:, :2], expected[:, :2]), "these heads have the other key"
    assert found[7:, 2:].isnan().any(), "nobody hides that something is broken"
    if math.isnan(value):
        assert found[7:, 2:].isnan().all()


def one_draft(start: int, num_new: int) -> Case:
    """Of one sequence."""
    case = make_case(11, FORMS["grouped"])
    blocks = range(-(-(start + num_new) // BLOCK_SIZE))
    q, k, v = (
        torch.randn(num_new, *side.shape[1:], device=DEVICE) for side in (case.q, case.k, case.v)
    )
    return Case([Span(start, num_new, blocks)], case.cache, q, k, v)


def test_queries_may_be_a_part_of_a_larger_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    use_parts(1, monkeypatch)
    case = one_draft(3, 5)
    expected = case.run(kernel(), None, 16)
    q, k, v = torch.cat([case.q, case.k, case.v], 1).split([4, 2, 2], 1)
    found = Case(case.spans, case.cache, q, k, v).run(kernel(), None, 16)
    assert torch.equal(found, expected)
