"""Products with a weight on a CPU, for any number of rows; a row's bits are its own.

The weight lies in panels of 16 outputs, a cache line of numbers for each input, so that it is read
once and in order. A tile is a few rows times a panel, its sums held in registers; each output is
one chain of fused multiply-adds over the inputs in turn. Whatever rows come with it, however the
work is shared out and however wide the processor's registers are, its bits are the same.

A panel in float16 is widened as it is read: half the bytes, and sums in float32 as ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.cpu_kernels import Floats, compiled, exponential, processor_has
from engine.vector_code import INDEX, VectorCode

Panels = NDArray[np.float32] | NDArray[np.uint16]

EPILOGUES = {"none": 0, "swish": 1, "mul": 2, "add": 3}
WIDTH = 16  # outputs of a panel
_LANES = 16 if processor_has("avx512f") else 8  # numbers of a register
_MOST_ROWS = 12 if processor_has("avx512f") else 6  # of a tile: its sums fill the registers
_CHUNK_ROWS = 48  # whose inputs stay in the cache while panels pass by
_MANY_ROWS = 6  # that leave time to ask for the next panel
_GROUP = 2  # panels that a thread takes at a time


@dataclass(frozen=True, slots=True)
class PanelWeight:
    """A weight [outputs, inputs] and its bias as products read them."""

    panels: Panels
    """[panels, inputs, WIDTH], zeros beyond the last output; float32 or the bits of float16."""
    bias: Floats
    """[outputs], or empty."""
    num_outputs: int

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> PanelWeight:
        num_outputs, num_inputs = weight.shape
        padded = functional.pad(weight, (0, 0, 0, -num_outputs % WIDTH))
        panels = padded.view(-1, WIDTH, num_inputs).transpose(1, 2).contiguous().numpy()
        if weight.dtype == torch.float16:
            panels = panels.view(np.uint16)
        floats = np.empty(0, np.float32) if bias is None else bias.float().numpy()
        return cls(panels, floats, num_outputs)


def _typed_tile(
    context: Any, x: Any, num_rows: Any, panels: Any, panel: Any, ahead: Any, out: Any
) -> Any:
    """`num_rows` of [rows, inputs] at the address x, times a panel -> [MOST_ROWS, WIDTH] at out.

    With `ahead` the memory is asked for the next panel meanwhile.
    """
    number = types.intp
    signature = types.none(number, number, panels, number, types.boolean, number)
    is_half = panels.dtype == types.uint16
    size = 2 if is_half else 4

    def generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        x, num_rows, panels, panel, ahead, out = arguments
        code, parts = VectorCode(build, _LANES), range(WIDTH // _LANES)
        held = context.make_array(signature.args[2])(context, build, panels)
        num_inputs = cgutils.unpack_tuple(build, held.shape)[1]
        line = INDEX(WIDTH * size)
        start = build.ptrtoint(held.data, INDEX)
        start = build.add(start, build.mul(panel, build.mul(num_inputs, line)))

        def tile(case: int) -> None:
            rows = [code.at(x, build.mul(num_inputs, INDEX(row))) for row in range(case // 2)]

            def grow(i: Any, sums: list[Any]) -> list[Any]:
                weights = build.add(start, build.mul(i, line))
                if case % 2:
                    code.prefetch(build.add(weights, build.mul(num_inputs, line)))
                w = [
                    code.load(build.add(weights, INDEX(part * _LANES * size)), is_half)
                    for part in parts
                ]
                factors = [code.spread(code.at(row, i)) for row in rows]
                pairs = [(factor, weight) for factor in factors for weight in w]
                return [code.fma(*pair, own) for pair, own in zip(pairs, sums, strict=True)]

            sums = code.loop(num_inputs, [code.zero for _ in rows for _ in parts], grow)
            for place, vector in enumerate(sums):
                code.store(vector, code.at(out, place * _LANES))

        choice = build.add(build.add(num_rows, num_rows), build.zext(ahead, INDEX))
        code.choose(choice, range(2, 2 * _MOST_ROWS + 2), tile)
        return context.get_dummy_value()

    return signature, generate


_tile: Any = intrinsic(_typed_tile)


@compiled
def _finish(
    sums: Floats, bias: Floats, epilogue: int, other: Floats, out: Floats, row: int, column: int
) -> None:
    """sums [rows, WIDTH] + bias, then the epilogue -> out from a row and column on."""
    num_columns = min(WIDTH, out.shape[1] - column)
    for i in range(len(sums)):
        into, beside = out[row + i, column:], other[row + i, column:]
        own = sums[i]
        if len(bias):
            for j in range(num_columns):
                own[j] += bias[column + j]
        if epilogue == 1:
            for j in range(num_columns):
                into[j] = own[j] / (np.float32(1.0) + exponential(-own[j]))
        elif epilogue == 2:
            for j in range(num_columns):
                into[j] = own[j] * beside[j]
        elif epilogue == 3:
            for j in range(num_columns):
                into[j] = own[j] + beside[j]
        else:
            for j in range(num_columns):
                into[j] = own[j]


@partial(compiled, parallel=True)
def multiply(
    x: Floats, panels: Panels, bias: Floats, epilogue: int, other: Floats, out: Floats
) -> None:
    """x [rows, inputs] @ the weight in `panels` + bias [outputs or 0] -> out [rows, outputs].

    Then what one of EPILOGUES says, with `other`, which is as `out`, or `out` if it needs none.
    """
    num_rows, num_panels = len(x), len(panels)
    num_chunks = (num_rows + _CHUNK_ROWS - 1) // _CHUNK_ROWS
    num_groups = (num_panels + _GROUP - 1) // _GROUP
    for item in prange(num_chunks * num_groups):
        start, first = item // num_groups * _CHUNK_ROWS, item % num_groups * _GROUP
        end = min(num_rows, start + _CHUNK_ROWS)
        sums = np.empty((_MOST_ROWS, WIDTH), np.float32)
        for panel in range(first, min(num_panels, first + _GROUP)):
            row, tiles_left = start, (end - start + _MOST_ROWS - 1) // _MOST_ROWS
            ahead = end - start >= _MANY_ROWS
            while tiles_left:
                size = (end - row + tiles_left - 1) // tiles_left
                address = x[row:].ctypes.data
                _tile(address, size, panels, panel, ahead and row == start, sums.ctypes.data)
                _finish(sums[:size], bias, epilogue, other, out, row, panel * WIDTH)
                row, tiles_left = row + size, tiles_left - 1
