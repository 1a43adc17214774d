"""Linear layers: every row's bits are its own in `invariant`, and right however computed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional

from engine import cpu_kernels
from engine.config import Numerics
from engine.linear import SLICE_ROWS, FormedLinear, use_form

SHAPES = [(32, 61), (64, 32), (96, 384), (576, 192)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
packed_types = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(params=["by kernel", "by oneDNN"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 has a kernel here, and oneDNN's product elsewhere."""
    if request.param == "by oneDNN":
        monkeypatch.setattr(cpu_kernels, "can_read", lambda tensor: False)


@pytest.fixture(params=[1, 2])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def layer(shape: tuple[int, int], bias: bool = False) -> nn.Linear:
    torch.manual_seed(shape[0] * 1000 + shape[1])
    return nn.Linear(*shape, bias=bias)


def rows_for(shape: tuple[int, int], num_rows: int) -> torch.Tensor:
    return torch.randn(num_rows, shape[0], generator=torch.Generator().manual_seed(num_rows))


@torch.inference_mode()
def output(formed: FormedLinear, rows: torch.Tensor) -> torch.Tensor:
    found = formed(rows)
    assert isinstance(found, torch.Tensor)
    return found


@every_shape
@packed_types
@pytest.mark.usefixtures("num_threads")
def test_a_rows_bits_depend_neither_on_the_width_nor_on_its_place(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    formed = FormedLinear(layer(shape, bias=True).to(dtype), "invariant")
    rows = rows_for(shape, 70).to(dtype)
    alone = torch.cat([output(formed, row[None]) for row in rows])
    for width in (2, 3, 4, 15, 16, 17, 33, 64, 70):
        assert torch.equal(output(formed, rows[:width]), alone[:width])
        assert torch.equal(output(formed, rows[-width:]), alone[-width:])
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1))
    assert torch.equal(output(formed, rows[order]), alone[order])


@every_shape
@packed_types
def test_a_rows_bits_do_not_depend_on_the_other_rows(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    formed = FormedLinear(layer(shape).to(dtype), "invariant")
    rows = rows_for(shape, SLICE_ROWS + 3).to(dtype)
    expected = output(formed, rows)[5]
    for others in (0.0, 1e30, float("inf"), float("nan")):
        beside = torch.full_like(rows, others)
        beside[5] = rows[5]
        assert torch.equal(output(formed, beside)[5], expected)


@every_shape
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("numerics", ["fast", "invariant"])
def test_both_forms_compute_the_product(
    numerics: Numerics, bias: bool, shape: tuple[int, int]
) -> None:
    linear = layer(shape, bias)
    formed = FormedLinear(linear, numerics)
    for num_rows in (1, 2, 3, 4, 5, 16, 17, 40):
        rows = rows_for(shape, num_rows)
        expected = functional.linear(
            rows.double(), linear.weight.double(), linear.bias.double() if bias else None
        )
        torch.testing.assert_close(output(formed, rows).double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("numerics", ["fast", "invariant"])
@pytest.mark.parametrize("leading", [(), (1,), (0,), (3, 5), (1, 1, 4)], ids=str)
def test_leading_dimensions_are_kept(numerics: Numerics, leading: tuple[int, ...]) -> None:
    formed = FormedLinear(layer((32, 61)), numerics)
    assert output(formed, torch.zeros(*leading, 32)).shape == (*leading, 61)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("epilogue", ["none", "swish", "times", "plus"])
def test_other_types_than_float32_are_computed_in_their_own(
    dtype: torch.dtype, epilogue: str
) -> None:
    linear = layer((32, 61)).to(dtype)
    formed = FormedLinear(linear, "fast")
    rows, other = rows_for((32, 61), 5).to(dtype), rows_for((61, 1), 5).to(dtype)
    product = functional.linear(rows, linear.weight)
    expected = {
        "none": product,
        "swish": functional.silu(product),
        "times": product * other,
        "plus": product + other,
    }[epilogue]
    with torch.inference_mode():
        if epilogue in ("none", "swish"):
            found = formed(rows) if epilogue == "none" else formed.swish(rows)
        else:
            found = formed.times(rows, other) if epilogue == "times" else formed.plus(rows, other)
    assert found.dtype == dtype
    tolerance = 2 * torch.finfo(dtype).eps + 1e-12  # one pass rounds once, two passes twice
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_every_linear_layer_of_a_model_is_replaced_and_nothing_else() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.ReLU()}))
    use_form(model, "invariant")
    kinds = [type(module).__name__ for module in model.modules()]
    assert kinds == ["Sequential", "FormedLinear", "ModuleDict", "FormedLinear", "ReLU"]
