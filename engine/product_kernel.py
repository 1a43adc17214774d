"""Products with a weight on a CPU, for any number of rows; a row's bits are its own.

The weight lies in panels of 16 outputs, so that it is read once and in order. A tile is a few rows
times a panel, its sums held in registers; each output is one chain of fused multiply-adds over the
inputs in turn. Whatever rows come with it, however the work is shared out and however wide the
processor's registers are, its bits are the same.

A weight in fewer bytes (`engine.exact_bits`) is widened as it is read, to the same bits: once for a
few rows, or once for all of a thread's rows where they are many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from engine.cpu_kernels import Floats, compiled, exponential, processor_has
from engine.exact_bits import BLOCK, WIDTH, panels_of
from engine.vector_code import INDEX, VectorCode

Panels = NDArray[Any]
_DTYPES = {
    "float32": np.float32,
    "float16": np.uint16,
    "bfloat16": np.int16,
    "8 bits": np.int8,
    "4 bits": np.uint8,
}
"""Tells compiled code the form of panels."""

EPILOGUES = {"none": 0, "swish": 1, "mul": 2, "add": 3}
_LANES = 16 if processor_has("avx512f") else 8  # numbers of a register
_MOST_ROWS = 12 if processor_has("avx512f") else 6  # of a tile: its sums fill the registers
_CHUNK_ROWS = 48  # whose inputs stay in the cache while panels pass by
_MANY_ROWS = 6  # that leave time to ask for the next panel
_GROUP = 2  # panels that a thread takes at a time


@dataclass(frozen=True, slots=True)
class PanelWeight:
    """A weight [outputs, inputs] and its bias as products read them."""

    panels: Panels
    """As `exact_bits.panels_of` makes them."""
    bias: Floats
    """[outputs], or empty."""
    num_outputs: int

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> PanelWeight:
        """Float32, held in the fewest bytes that give it back, or float16."""
        form, panels = panels_of(weight)
        floats = np.empty(0, np.float32) if bias is None else bias.float().numpy()
        return cls(panels.numpy().view(_DTYPES[form]), floats, len(weight))


class _Lines:
    """Reads a panel line by line, the weights of an input for WIDTH outputs, in float32."""

    def __init__(self, code: VectorCode, panels: Any) -> None:
        self._code, self._dtype = code, panels.dtype
        self._parts = [INDEX(part) for part in range(0, WIDTH, code.lanes)]
        self.are_levels = self._dtype in (types.int8, types.uint8)

    def over(
        self, panel: Any, num_inputs: Any, carried: Sequence[Any], body: Callable[..., list[Any]]
    ) -> list[Any]:
        """body(input, its vectors, its address, carried values) -> these values after it."""
        code, build = self._code, self._code.build
        if not self.are_levels:
            size = self._dtype.bitwidth // 8

            def one(i: Any, held: list[Any]) -> list[Any]:
                line = build.add(panel, build.mul(i, INDEX(WIDTH * size)))
                return body(i, [self._load(line, part, size) for part in self._parts], line, held)

            return code.loop(num_inputs, carried, one)
        line_size = WIDTH if self._dtype == types.int8 else WIDTH // 2

        def block(number: Any, held: list[Any]) -> list[Any]:
            at = build.add(panel, build.mul(number, INDEX(4 * WIDTH + BLOCK * line_size)))
            scales, offsets = (
                [code.load_half(_after(build, at, part, 2, skipped)) for part in self._parts]
                for skipped in (0, 2 * WIDTH)
            )
            first = build.mul(number, INDEX(BLOCK))

            def one(i: Any, held: list[Any]) -> list[Any]:
                line = _after(build, at, i, line_size, 4 * WIDTH)
                levels = (
                    code.load_nibbles(line) if line_size < WIDTH
                    else [code.load_bytes(build.add(line, part)) for part in self._parts]
                )  # fmt: skip
                numbers = zip(scales, levels, offsets, strict=True)
                return body(build.add(first, i), [code.fma(*each) for each in numbers], line, held)

            return code.loop(INDEX(BLOCK), held, one)

        return code.loop(build.sdiv(num_inputs, INDEX(BLOCK)), carried, block)

    def _load(self, line: Any, part: Any, size: int) -> Any:
        at = _after(self._code.build, line, part, size)
        if size == 4:
            return self._code.load(at)
        is_half = self._dtype == types.uint16
        return self._code.load_half(at) if is_half else self._code.load_brain(at)


def _after(build: Any, address: Any, count: Any, size: int, skipped: int = 0) -> Any:
    """The address of a thing of `size` bytes, behind others and what comes first."""
    return build.add(build.add(address, INDEX(skipped)), build.mul(count, INDEX(size)))


def _typed_tile(
    context: Any, x: Any, num_rows: Any, num_inputs: Any, panels: Any, panel: Any, ahead: Any,
    out: Any,
) -> Any:  # fmt: skip
    """`num_rows` of [rows, inputs] at the address x, times a panel at one -> [rows, WIDTH] at out.

    `panels` says its form. With `ahead` the memory is asked for the next one meanwhile.
    """

    def generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        x, num_rows, num_inputs, _, panel, ahead, out = arguments
        code = VectorCode(build, _LANES)
        lines = _Lines(code, panels)
        away = build.mul(num_inputs, INDEX(WIDTH * panels.dtype.bitwidth // 8))

        def tile(case: int) -> None:
            rows = [code.at(x, build.mul(num_inputs, INDEX(row))) for row in range(case // 2)]

            def grow(i: Any, w: list[Any], line: Any, sums: list[Any]) -> list[Any]:
                if case % 2 and not lines.are_levels:
                    code.prefetch(build.add(line, away))
                factors = [code.spread(code.at(row, i)) for row in rows]
                pairs = [(factor, weight) for factor in factors for weight in w]
                return [code.fma(*pair, own) for pair, own in zip(pairs, sums, strict=True)]

            zeros = [code.zero for _ in rows for _ in range(0, WIDTH, _LANES)]
            sums = lines.over(panel, num_inputs, zeros, grow)
            for place, vector in enumerate(sums):
                code.store(vector, code.at(out, place * _LANES))

        choice = build.add(build.add(num_rows, num_rows), build.zext(ahead, INDEX))
        code.choose(choice, range(2, 2 * _MOST_ROWS + 2), tile)
        return context.get_dummy_value()

    number = types.intp
    return types.none(number, number, number, panels, number, types.boolean, number), generate


def _typed_widen(context: Any, num_inputs: Any, panels: Any, panel: Any, out: Any) -> Any:
    """The panel at an address -> float32 [inputs, WIDTH] at `out`."""

    def generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        num_inputs, _, panel, out = arguments
        code = VectorCode(build, _LANES)

        def keep(i: Any, w: list[Any], line: Any, held: list[Any]) -> list[Any]:
            for part, vector in enumerate(w):
                code.store(vector, code.at(out, build.mul(i, INDEX(WIDTH)), part * _LANES))
            return []

        _Lines(code, panels).over(panel, num_inputs, [], keep)
        return context.get_dummy_value()

    return types.none(types.intp, panels, types.intp, types.intp), generate


_tile: Any = intrinsic(_typed_tile)
_widen: Any = intrinsic(_typed_widen)


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
    (num_rows, num_inputs), num_panels = x.shape, len(panels)
    num_chunks = (num_rows + _CHUNK_ROWS - 1) // _CHUNK_ROWS
    num_groups = (num_panels + _GROUP - 1) // _GROUP
    for item in prange(num_chunks * num_groups):
        start, first = item // num_groups * _CHUNK_ROWS, item % num_groups * _GROUP
        end = min(num_rows, start + _CHUNK_ROWS)
        sums = np.empty((_MOST_ROWS, WIDTH), np.float32)
        is_widened = panels.itemsize < 4 and end - start > 2 * _MOST_ROWS
        wide = np.empty((num_inputs if is_widened else 0, WIDTH), np.float32)
        for panel in range(first, min(num_panels, first + _GROUP)):
            weights = panels.ctypes.data + panel * panels.strides[0]
            if is_widened:
                _widen(num_inputs, panels, weights, wide.ctypes.data)
            row, tiles_left = start, (end - start + _MOST_ROWS - 1) // _MOST_ROWS
            while tiles_left:
                size = (end - row + tiles_left - 1) // tiles_left
                at, ahead = x[row:].ctypes.data, row == start and end - start >= _MANY_ROWS
                into = sums.ctypes.data
                if is_widened:
                    _tile(at, size, num_inputs, wide, wide.ctypes.data, False, into)
                else:
                    _tile(at, size, num_inputs, panels, weights, ahead, into)
                _finish(sums[:size], bias, epilogue, other, out, row, panel * WIDTH)
                row, tiles_left = row + size, tiles_left - 1
