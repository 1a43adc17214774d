"""Products by our kernel are torch's, and a row's bits are its own: exactly one chain of sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_support import needs_kernels, numbers
from torch.nn import functional

from engine.exact_bits import WIDTH
from engine.product_kernel import EPILOGUES, PanelWeight, multiply

pytestmark = needs_kernels


def product(
    x: torch.Tensor, weight: PanelWeight, epilogue: str = "none", other: torch.Tensor | None = None
) -> torch.Tensor:
    out = torch.full((len(x), weight.num_outputs), float("nan"))
    beside = out if other is None else other
    multiply(
        x.numpy(), weight.panels, weight.bias, EPILOGUES[epilogue], beside.numpy(), out.numpy()
    )
    return out


@pytest.mark.parametrize("num_rows", [1, 2, 5, 6, 7, 11, 12, 13, 25, 47, 48, 49, 100])
@pytest.mark.parametrize("num_outputs", [1, 15, 16, 17, 70])
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_a_product_with_its_epilogue_is_torchs(
    num_rows: int, num_outputs: int, epilogue: str
) -> None:
    x, weight, bias = numbers(num_rows, 50), numbers(num_outputs, 50), numbers(num_outputs)
    other = numbers(num_rows, num_outputs)
    exact = functional.linear(x, weight, bias)
    wanted = {
        "none": exact,
        "swish": functional.silu(exact),
        "mul": exact * other,
        "add": exact + other,
    }[epilogue]
    found = product(x, PanelWeight.of(weight, bias), epilogue, other)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-5)
    without = product(x, PanelWeight.of(weight, None))
    torch.testing.assert_close(without, x @ weight.T, rtol=1e-5, atol=2e-5)


def test_panels_are_padded_with_zeros() -> None:
    weight = numbers(WIDTH + 3, 5)
    panels = PanelWeight.of(weight, None).panels
    assert panels.shape == (2, 5, WIDTH)
    assert (panels[0] == weight[:WIDTH].T.numpy()).all()
    assert (panels[1, :, :3] == weight[WIDTH:].T.numpy()).all()
    assert (panels[1, :, 3:] == 0.0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_an_output_is_one_chain_of_sums_over_the_inputs(dtype: torch.dtype) -> None:
    """Each a fused multiply-add, which float64 computes: a product of float32 fits in it."""
    x, weight = numbers(14, 37), numbers(20, 37).to(dtype)
    chain = np.zeros((14, 20), np.float32)
    for i in range(37):
        term = x[:, i].double().outer(weight[:, i].double()).numpy()
        chain = (chain + term).astype(np.float32)
    found = product(x, PanelWeight.of(weight, None)).numpy()
    differing = found != chain  # where the sum in float64 was rounded, too
    assert differing.mean() < 1e-3
    np.testing.assert_allclose(found, chain, rtol=0.0, atol=1e-6)


def test_swish_of_what_exceeds_the_exponential_is_0() -> None:
    found = product(torch.full((1, 1), -200.0), PanelWeight.of(torch.ones(1, 1), None), "swish")
    assert abs(float(found)) < 1e-30


@pytest.mark.parametrize("epilogue", ["none", "swish"])
def test_a_nan_stays_one_and_stays_alone(epilogue: str) -> None:
    x = torch.tensor([[1.0, float("nan")], [1.0, 2.0]])
    found = product(x, PanelWeight.of(torch.ones(1, 2), None), epilogue)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()
