"""Weights in float16: products as exact as these, bits of their own, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_folders import saved
from tiny_models import VOCAB, tiny_head, tiny_model
from torch import Tensor, nn
from torch.nn import functional

import engine.quantisation
from engine.config import Numerics
from engine.drafters.head_model import SharedWeights
from engine.drafters.head_runner import HeadRoom, HeadRunner
from engine.errors import ModelRefusedError
from engine.linear import FormedLinear, fewest_rows
from engine.models import build_runner, load_model, prepare_model
from engine.quantisation import hold_weights_in, quantise
from engine.reduced_vocabulary import ReducedVocabulary
from engine.runner import Extension

SHAPES = [(32, 61), (64, 32), (96, 384), (576, 192), (1536, 576)]
ROUNDING = torch.finfo(torch.float16).eps / 2
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
both_forms = pytest.mark.parametrize("numerics", ["fast", "invariant"])


def layer(shape: tuple[int, int], bias: bool = False) -> nn.Linear:
    torch.manual_seed(shape[0] * 1000 + shape[1])
    return nn.Linear(*shape, bias=bias)


def held(linear: nn.Linear) -> nn.Linear:
    """The same layer with its weights in float16."""
    made = nn.Sequential(linear)
    hold_weights_in(torch.float16, made)
    return linear


def rows_for(shape: tuple[int, int], num_rows: int) -> Tensor:
    return torch.randn(num_rows, shape[0], generator=torch.Generator().manual_seed(num_rows))


@torch.inference_mode()
def output(formed: FormedLinear, rows: Tensor) -> Tensor:
    found = formed(rows)
    assert isinstance(found, Tensor)
    return found


@every_shape
@both_forms
@pytest.mark.parametrize("bias", [False, True])
def test_only_the_weights_are_rounded(
    bias: bool, numerics: Numerics, shape: tuple[int, int]
) -> None:
    exact = layer(shape, bias)
    weight, floats = exact.weight.data.double(), exact.bias.data.double() if bias else None
    formed = FormedLinear(held(layer(shape, bias)), numerics)
    for num_rows in (1, 2, 3, 4, 5, 16, 17, 40):
        rows = rows_for(shape, num_rows)
        found = output(formed, rows)
        assert found.dtype == torch.float32
        rounded = functional.linear(rows.double(), weight.half().double(), floats)
        torch.testing.assert_close(found.double(), rounded, atol=1e-4, rtol=1e-4)
        bound = rows.double().abs() @ weight.abs().T * ROUNDING + 1e-5
        true = functional.linear(rows.double(), weight, floats)
        assert bool(((found.double() - true).abs() <= bound).all())


@every_shape
@both_forms
def test_a_rows_bits_depend_neither_on_the_width_nor_on_its_place(
    numerics: Numerics, shape: tuple[int, int]
) -> None:
    formed = FormedLinear(held(layer(shape, bias=True)), numerics)
    rows = rows_for(shape, 70)
    alone = torch.cat([output(formed, row[None]) for row in rows])
    for width in (2, 3, 4, 15, 16, 17, 33, 64, 70):
        assert torch.equal(output(formed, rows[:width]), alone[:width])
        assert torch.equal(output(formed, rows[-width:]), alone[-width:])


@both_forms
def test_what_follows_a_product_is_computed_in_float32(numerics: Numerics) -> None:
    formed = FormedLinear(held(layer((96, 384))), numerics)
    rows, other = rows_for((96, 384), 5), rows_for((384, 1), 5)
    product = output(formed, rows)
    with torch.inference_mode():
        torch.testing.assert_close(formed.swish(rows), functional.silu(product))
        assert torch.equal(formed.times(rows, other), product * other)
        assert torch.equal(formed.plus(rows, other), product + other)


def test_linear_layers_are_rounded_and_a_tied_embedding_is_not(tmp_path: Path) -> None:
    tied = tiny_model("gemma3")
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    model = load_model(saved(tmp_path, "gemma3"), "cpu", "float32", "float16")
    linears = [each for each in model.modules() if type(each) is nn.Linear]
    assert model.get_output_embeddings() in linears
    weights = {id(each.weight) for each in linears}
    for name, weight in model.named_parameters():
        assert weight.dtype == (torch.float16 if id(weight) in weights else torch.float32), name
    kept, expected = model.get_input_embeddings().weight, tied.get_input_embeddings().weight
    assert isinstance(kept, Tensor)
    assert isinstance(expected, Tensor)
    assert torch.equal(kept, expected)


def test_a_quantised_model_says_nearly_what_it_said() -> None:
    tokens = torch.randint(3, VOCAB, (1, 30), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = tiny_model()(input_ids=tokens).logits[0]
    model = tiny_model()
    quantise(model, "float16")
    runner = build_runner(prepare_model(model, "cpu"), 128, 4, "fast")
    assert fewest_rows(model) == 1
    found = runner.extend([Extension(tokens[0].tolist(), 0, range(8), 30)])
    for position in range(30):
        row = torch.tensor(found.row(position))
        torch.testing.assert_close(row, expected[position], atol=0.02, rtol=0.01)


@both_forms
def test_a_heads_weights_are_in_16_bits_whatever_its_targets_are(numerics: Numerics) -> None:
    model = tiny_model()
    exact = SharedWeights.of(tiny_model())
    quantise(model, "float16")
    tokens, states = list(range(3, 20)), torch.randn(17, 32)
    found = []
    for shared in (exact, SharedWeights.of(model)):
        ids = ReducedVocabulary(range(VOCAB), VOCAB)
        runner = HeadRunner(tiny_head(), shared, ids, HeadRoom(8, 4, 2), numerics)
        own = runner.extend([Extension(tokens, 0, range(8), 0)], states)
        assert own.dtype == torch.float32
        found.append(runner.logits(own))
    for row in range(17):
        ours, theirs = (logits.row(row) for logits in found)
        assert (ours == theirs).all()


def test_other_devices_and_types_are_refused() -> None:
    with pytest.raises(ModelRefusedError, match=r"^llama: quantization: .* device: cpu, not meta"):
        quantise(tiny_model().to("meta"), "float16")  # type: ignore[arg-type]
    with pytest.raises(ModelRefusedError, match=r"dtype: float32, not bfloat16"):
        quantise(tiny_model().bfloat16(), "float16")


@pytest.mark.parametrize("value", [7e4, float("inf"), float("nan")])
def test_weights_out_of_range_are_refused_by_name(value: float) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_output_embeddings().weight[3, 4] = value
    with pytest.raises(ModelRefusedError, match=r"lm_head has weights beyond 65504"):
        quantise(model, "float16")


def test_a_processor_without_the_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.quantisation, "can_widen", lambda: False)
    with pytest.raises(ModelRefusedError, match=r"needs kernels"):
        quantise(tiny_model(), "float16")


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    model = tiny_model().bfloat16()
    quantise(model, None)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
