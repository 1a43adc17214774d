"""A layer in two compiled calls is the layer by torch's operators, and a row's bits are its own."""

from __future__ import annotations

import pytest
import torch
from kernel_support import needs_kernels, numbers
from torch import Tensor, nn

from engine import cpu_kernels
from engine.fused_layers import FusedLayer, LayerParts, Norm, exchanging, linear_of

HEADS, KV_HEADS, DIM, WIDTH = 6, 2, 8, 70
SIZE = HEADS * DIM

pytestmark = needs_kernels


class Echo:
    """Attention of which the answer is the queries, plus what every one of its heads sees."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None
    ) -> Tensor:
        return q + (k * v).repeat_interleave(HEADS // KV_HEADS, 1)


def norm(seed: int) -> nn.RMSNorm:
    made = nn.RMSNorm(SIZE, 1e-5)
    made.weight = nn.Parameter(numbers(SIZE + seed)[:SIZE], requires_grad=False)
    return made


def parts(bias: bool, dtype: torch.dtype = torch.float32) -> LayerParts:
    def linear(outputs: int, inputs: int) -> nn.Linear:
        weight = (numbers(outputs, inputs) * 0.2).to(dtype)
        return linear_of(weight, numbers(outputs) if bias else None)

    all_heads = (HEADS + 2 * KV_HEADS) * DIM
    return LayerParts(
        0, 0.3, DIM, HEADS, KV_HEADS, norm(1), linear(all_heads, SIZE), linear(SIZE, SIZE),
        norm(2), linear(WIDTH, SIZE), linear(WIDTH, SIZE), linear(SIZE, WIDTH),
    )  # fmt: skip


def angles(num_tokens: int) -> tuple[Tensor, Tensor]:
    turns = numbers(num_tokens, DIM // 2).repeat(1, 2)
    return exchanging(turns.cos(), turns.sin())


@torch.inference_mode()
def output(layer: FusedLayer, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    (found,) = layer(x[None], position_embeddings=rotation, batch=Echo())
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_tokens", [1, 7, 60])
def test_a_layer_is_what_torchs_operators_compute(
    num_tokens: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = FusedLayer(parts(bias), "fast")
    monkeypatch.setattr(cpu_kernels, "can_read", lambda tensor: False)
    other = FusedLayer(parts(bias), "fast")
    x, rotation = numbers(num_tokens, SIZE), angles(num_tokens)
    found, wanted = output(layer, x, rotation), output(other, x, rotation)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.equal(found, wanted), "both are computed the same way"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_rows_bits_are_its_own(dtype: torch.dtype) -> None:
    layer = FusedLayer(parts(True, dtype), "fast")
    x, (cosine, sine) = numbers(50, SIZE), angles(50)
    together = output(layer, x, (cosine, sine))
    for row in range(50):
        own = slice(row, row + 1)
        assert torch.equal(output(layer, x[own], (cosine[own], sine[own])), together[own])


@pytest.mark.parametrize("num_rows", [1, 3, 40])
def test_a_norm_is_torchs_and_a_row_has_its_own_bits(num_rows: int) -> None:
    exact = nn.RMSNorm(70, 1e-5)
    nn.init.normal_(exact.weight)
    x = numbers(num_rows, 70)
    with torch.inference_mode():
        found = Norm(exact)(x)
        torch.testing.assert_close(found, exact(x), rtol=1e-5, atol=1e-6)
        assert torch.equal(found[-1], Norm(exact)(x[-1]))
