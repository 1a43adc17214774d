"""`python -m benchmarks.linear_forms`: time and bits of four ways to multiply by a weight.

Over the linear layers of SmolLM2-135M (random weights, float32 or DTYPE=bfloat16): milliseconds of
all of them by the number of rows, and the numbers of rows at which the first row's bits differ from
those at 16 rows. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from engine.fused_layers import linear_of
from engine.linear import FormedLinear

HIDDEN, MLP, KV, VOCAB = 576, 1536, 192, 49152
LAYER = ((HIDDEN, HIDDEN), (HIDDEN, KV), (HIDDEN, KV), (HIDDEN, HIDDEN),
         (HIDDEN, MLP), (HIDDEN, MLP), (MLP, HIDDEN))  # fmt: skip
DTYPE: torch.dtype = getattr(torch, os.environ.get("DTYPE", "float32"))
Form = Callable[[nn.Linear], Callable[[Tensor], Tensor]]

FORMS: Mapping[str, Form] = {
    "F.linear": lambda layer: layer,
    "mm(weight, x.T)": lambda layer: lambda x: torch.mm(layer.weight, x.T).T,
    "ours": lambda layer: FormedLinear(layer, "fast"),
    "float16 weights": lambda layer: FormedLinear(linear_of(layer.weight.data.half()), "fast"),
}


def median_ms(run: Callable[[], object], num_repeats: int) -> float:
    run()
    times = []
    for _ in range(num_repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2] * 1e3


def layers(num_layers: int) -> list[nn.Linear]:
    torch.manual_seed(0)
    shapes = [*LAYER * num_layers, (HIDDEN, VOCAB)]
    return [nn.Linear(inputs, outputs, bias=False, dtype=DTYPE) for inputs, outputs in shapes]


def milliseconds(form: Form, model: Sequence[nn.Linear], num_rows: int, repeats: int) -> float:
    products = [(form(layer), layer.in_features) for layer in model]
    inputs = {size: torch.randn(num_rows, size, dtype=DTYPE) for size in (HIDDEN, MLP)}
    return median_ms(lambda: [product(inputs[size]) for product, size in products], repeats)


def differing_rows(form: Form, model: Sequence[nn.Linear], widths: Sequence[int]) -> list[int]:
    differing = set()
    for layer in (*model[: len(LAYER)], model[-1]):
        product, x = form(layer), torch.randn(max(widths), layer.in_features, dtype=DTYPE)
        reference = product(x[:16])[0]
        differing |= {n for n in widths if not torch.equal(product(x[:n])[0], reference)}
    return sorted(differing)


@torch.inference_mode()
def main() -> None:
    quick = bool(os.environ.get("QUICK"))
    widths = (1, 4, 16) if quick else (1, 2, 3, 4, 8, 12, 16, 17, 24, 32, 48, 64, 256)
    model = layers(4 if quick else 30)
    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print(f"{'rows':18}" + "".join(f"{n:8}" for n in widths))
    figures: dict[str, object] = {}
    for name, form in FORMS.items():
        row = [milliseconds(form, model, n, 3 if quick else 9) for n in widths]
        print(f"{name:18}" + "".join(f"{ms:8.1f}" for ms in row))
        differing = differing_rows(form, model, widths)
        print(f"{'':18}other bits at {differing or 'no width'}")
        figures[name] = {"ms": dict(zip(widths, row, strict=True)), "other_bits_at": differing}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
