"""A weight in fewer bytes is every number of it, and what it is multiplied to has the same bits."""

from __future__ import annotations

import pytest
import torch
from kernel_support import needs_kernels, numbers
from torch import Tensor

from engine.exact_bits import BLOCK, WIDTH, Form, panels_of
from engine.product_kernel import EPILOGUES, PanelWeight, multiply

OUTPUTS, INPUTS = 2 * WIDTH + 5, 3 * BLOCK
BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "8 bits": 1.125, "4 bits": 0.625}


def of_levels(num_bits: int) -> Tensor:
    """As Q8_0 and Q4_1 files have them: a block's extremes are the extreme levels."""
    lowest, highest = (0, 15) if num_bits == 4 else (-127, 127)
    generator = torch.Generator().manual_seed(num_bits)
    shape = (OUTPUTS, INPUTS // BLOCK, BLOCK)
    levels = torch.randint(lowest, highest + 1, shape, generator=generator).float()
    levels[..., 3], levels[..., 9] = lowest, highest
    scale = (numbers(*shape[:2], 1).abs() * 0.01).half().float()
    offset = numbers(*shape[:2], 2)[..., :1].half().float() if num_bits == 4 else 0.0
    return (scale * levels + offset).view(OUTPUTS, INPUTS)


def weight_in(form: Form) -> Tensor:
    if form in ("8 bits", "4 bits"):
        return of_levels(int(form[0]))
    wide = numbers(OUTPUTS, INPUTS)
    if form == "bfloat16":
        wide[0, 0] = 1e-30  # out of float16's range
        return wide.bfloat16().float()
    return wide.half().float() if form == "float16" else wide


def product(x: Tensor, weight: PanelWeight) -> Tensor:
    out = torch.empty(len(x), weight.num_outputs)
    multiply(x.numpy(), weight.panels, weight.bias, EPILOGUES["none"], out.numpy(), out.numpy())
    return out


@pytest.mark.parametrize("form", BYTES)
def test_a_weight_takes_the_fewest_bytes_that_hold_it(form: Form) -> None:
    weight = weight_in(form)
    found, panels = panels_of(weight)
    assert found == form
    num_panels = -(-OUTPUTS // WIDTH)
    assert panels.nbytes == num_panels * WIDTH * INPUTS * BYTES[form]


@needs_kernels
@pytest.mark.parametrize("form", BYTES)
def test_every_number_comes_back(form: Form) -> None:
    """Multiplied by the identity, by tiles that widen as they read and by those after widening."""
    weight, identity = weight_in(form), torch.eye(INPUTS)
    held = PanelWeight.of(weight, None)
    assert torch.equal(product(identity, held), weight.T)
    one_by_one = torch.cat([product(row[None], held) for row in identity])
    assert torch.equal(one_by_one, weight.T)


@needs_kernels
@pytest.mark.parametrize("num_rows", [1, 6, 7, 12, 13, 24, 25, 60])
@pytest.mark.parametrize("form", [form for form in BYTES if form != "float32"])
def test_a_product_has_the_bits_of_the_wide_weights(form: Form, num_rows: int) -> None:
    weight, x = weight_in(form), numbers(num_rows, INPUTS)
    wide = weight.clone()
    wide[-1] = numbers(INPUTS)  # an output of its own, so that no narrower form holds it all
    assert panels_of(wide)[0] == "float32"
    narrow, full = (product(x, PanelWeight.of(each, None)) for each in (weight, wide))
    assert torch.equal(narrow[:, :-1], full[:, :-1])


@pytest.mark.parametrize("form", ["8 bits", "4 bits"])
def test_one_number_beside_its_level_is_not_lost(form: Form) -> None:
    weight = weight_in(form)
    for row, column in ((0, 0), (OUTPUTS - 1, INPUTS - 1)):  # the first rows are tried first
        other = weight.clone()
        other[row, column] = other[row, column].nextafter(torch.tensor(9.0))
        assert panels_of(other)[0] == "float32"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_kept(value: float) -> None:
    weight = weight_in("4 bits")
    weight[1, 2] = value
    found, panels = panels_of(weight)
    assert found in ("float16", "float32")
    assert not panels.view(torch.float16 if found == "float16" else torch.float32).isfinite().all()


def test_inputs_that_are_no_whole_blocks_have_no_levels() -> None:
    assert panels_of(weight_in("4 bits")[:, : BLOCK + 1])[0] == "float32"
