"""Writes the inner loops of kernels in LLVM's language, for what Numba would not hold in registers.

Addresses are integers, as `array.ctypes.data` gives them in compiled code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

INDEX = ir.IntType(64)
_FLOAT, _FLAG = ir.FloatType(), ir.IntType(32)


class VectorCode:
    """Vectors of `lanes` float32; `build` is where code goes."""

    def __init__(self, build: Any, lanes: int) -> None:
        self.build = build
        self.lanes = lanes
        self.vector = ir.VectorType(_FLOAT, lanes)
        self._integers = ir.VectorType(_FLAG, lanes)
        self.zero = ir.Constant(self.vector, [0.0] * lanes)
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        self._fma = self._function(f"llvm.fma.v{lanes}f32", kind)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once."""
        return self.build.call(self._fma, [a, b, c])

    def at(self, address: Any, *numbers: Any) -> Any:
        """That address, so many float32 further on."""
        for number in numbers:
            address = self.build.add(address, self.build.mul(_index(number), INDEX(4)))
        return address

    def load(self, address: Any) -> Any:
        return self._read(address, _FLOAT)

    def load_half(self, address: Any) -> Any:
        """Of float16, widened."""
        return self.build.fpext(self._read(address, ir.HalfType()), self.vector)

    def load_brain(self, address: Any) -> Any:
        """Of bfloat16, widened."""
        numbers = self.build.zext(self._read(address, ir.IntType(16)), self._integers)
        sixteen = ir.Constant(self._integers, [16] * self.lanes)
        return self.build.bitcast(self.build.shl(numbers, sixteen), self.vector)

    def load_bytes(self, address: Any) -> Any:
        """Of signed integers of 8 bits, as floats."""
        numbers = self.build.sext(self._read(address, ir.IntType(8)), self._integers)
        return self.build.sitofp(numbers, self.vector)

    def load_nibbles(self, address: Any) -> list[Any]:
        """Sixteen numbers of 4 bits: the lower halves of eight bytes, then the upper; as floats."""
        build, eight = self.build, ir.VectorType(_FLAG, 8)
        both = build.zext(self._read(address, ir.IntType(8), 8), eight)
        low = build.and_(both, ir.Constant(eight, [15] * 8))
        high = build.lshr(both, ir.Constant(eight, [4] * 8))
        parts = [low, high] if self.lanes == 8 else [self._chosen(low, high, range(16))]
        return [build.sitofp(part, self.vector) for part in parts]

    def store(self, vector: Any, address: Any) -> None:
        self.build.store(vector, self._pointer(address, vector.type), align=4)

    def spread(self, address: Any) -> Any:
        """The float32 there in every lane."""
        none = ir.Constant(self.vector, ir.Undefined)
        number = self.build.load(self._pointer(address, _FLOAT))
        lanes = ir.Constant(ir.VectorType(_FLAG, self.lanes), [0] * self.lanes)
        return self.build.shuffle_vector(
            self.build.insert_element(none, number, _FLAG(0)), none, lanes
        )

    def sums_of_four(self, vectors: Sequence[Any]) -> Any:
        """Of four vectors of eight lanes -> one of four, the sum of each one's lanes."""
        first, second = (self._added_pairs(*vectors[i : i + 2]) for i in (0, 2))
        both = self._added_pairs(first, second)
        halves = (self._chosen(both, both, range(i, i + 4)) for i in (0, 4))
        return self.build.fadd(*halves)

    def _added_pairs(self, a: Any, b: Any) -> Any:
        """Of each half: two sums of neighbours in a, then two of b."""
        even, odd = (
            self._chosen(a, b, [lane + i for lane in (0, 2, 8, 10, 4, 6, 12, 14)]) for i in (0, 1)
        )
        return self.build.fadd(even, odd)

    def _chosen(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        """These lanes of a, and from as many on as it has, of b."""
        choice = ir.Constant(ir.VectorType(_FLAG, len(lanes)), list(lanes))
        return self.build.shuffle_vector(a, b, choice)

    def prefetch(self, address: Any) -> None:
        """Into the second cache, for reading."""
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _FLAG, _FLAG, _FLAG])
        prefetch = self._function("llvm.prefetch.p0i8", kind)
        where = self.build.inttoptr(address, byte)
        self.build.call(prefetch, [where, _FLAG(0), _FLAG(2), _FLAG(1)])

    def loop(
        self, count: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """body(i, carried values) -> these values after it, `count` times and at least once."""
        build = self.build
        before, inside, after = build.block, build.append_basic_block(), build.append_basic_block()
        build.branch(inside)
        build.position_at_end(inside)
        held = [build.phi(kind) for kind in (INDEX, *(value.type for value in carried))]
        i, *values = held
        following = [build.add(i, INDEX(1)), *body(i, values)]
        for phi, first, later in zip(held, [INDEX(0), *carried], following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, build.block)
        build.cbranch(build.icmp_signed("<", following[0], count), inside, after)
        build.position_at_end(after)
        return following[1:]

    def choose(self, number: Any, cases: Sequence[int], body: Callable[[int], None]) -> None:
        """The body written for each of the cases; none runs for another number."""
        build, after = self.build, self.build.append_basic_block()
        switch = build.switch(number, after)
        for case in cases:
            block = build.append_basic_block()
            switch.add_case(INDEX(case), block)
            build.position_at_end(block)
            body(case)
            build.branch(after)
        build.position_at_end(after)

    def _read(self, address: Any, kind: Any, count: int | None = None) -> Any:
        vector = ir.VectorType(kind, count or self.lanes)
        return self.build.load(self._pointer(address, vector), align=1)

    def _pointer(self, address: Any, kind: Any) -> Any:
        return self.build.inttoptr(address, kind.as_pointer())

    def _function(self, name: str, kind: Any) -> Any:
        return cgutils.get_or_insert_function(self.build.module, kind, name)


def _index(number: Any) -> Any:
    return INDEX(number) if isinstance(number, int) else number
