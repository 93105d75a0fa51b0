"""Scales and codes of weights of 4 and 5 bits: of each group the scale whose rounding has the smallest squared
error.

Twin: `code_layout.Codes.quantized`.

Written as vectors of 16 rows, each operation rounding on its own and in the twin's order, so that every
machine finds the same numbers. Cost: 48 scales for each weight, each of them 15 or 31 comparisons.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rwkv_engine.kernels._jit import exact, program
from rwkv_engine.kernels.pointers import address_of
from rwkv_engine.kernels.vectors import F32, FLOATS, I8, I64, LANES, ZERO, Loop, load, splat
from rwkv_engine.numbers.code_layout import FIRST, GROUP, INT4, INT5, LARGEST_SCALE, TRIED, Codes

_BYTES = ir.VectorType(I8, LANES)
_MAGIC = FLOATS([1.5 * 2**23] * LANES)


def _all(number: float) -> ir.Constant:
    return FLOATS([number] * LANES)


def _size(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    kind = ir.FunctionType(FLOATS, [FLOATS])
    return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.fabs.v16f32"), [x])


def _above(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.fcmp_ordered(">", x, y)


def _inverse(b: ir.IRBuilder, step: ir.Value) -> ir.Value:
    """1 / step; 0 where it is too small to divide by."""
    return b.select(_above(b, _size(b, step), _all(float(np.float32(1e-37)))), b.fdiv(_all(1.0), step), ZERO)


def _nearest(b: ir.IRBuilder, table: Codes, y: ir.Value) -> ir.Value:
    """The table's value nearest to y."""
    value = _all(float(FIRST))
    for edge, above in zip(table.edges, table.values[1:], strict=True):
        value = b.select(_above(b, y, _all(edge)), _all(float(above)), value)
    return value


def _code(b: ir.IRBuilder, table: Codes, y: ir.Value) -> ir.Value:
    code = _BYTES([0] * LANES)
    for number, edge in enumerate(table.edges):
        code = b.select(_above(b, y, _all(edge)), _BYTES([number + 1] * LANES), code)
    return code


def _largest(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    loop = Loop(b, I64(GROUP), [ZERO])
    size = _size(b, load(b, b.add(x, b.mul(loop.number, I64(4 * LANES))), FLOATS))
    (largest,) = loop.close([b.select(_above(b, size, loop.sums[0]), size, loop.sums[0])])
    return largest


def _errors(
    b: ir.IRBuilder, table: Codes, x: ir.Value, importance: ir.Value, steps: list[ir.Value]
) -> list[ir.Value]:
    """Of each step the sum of (weight - its value)^2 * importance, input after input."""
    inverses = [_inverse(b, step) for step in steps]
    loop = Loop(b, I64(GROUP), [ZERO] * len(steps))
    weight = load(b, b.add(x, b.mul(loop.number, I64(4 * LANES))), FLOATS)
    counts = splat(b, load(b, b.add(importance, b.mul(loop.number, I64(4))), F32))
    grown = []
    for step, inverse, total in zip(steps, inverses, loop.sums, strict=True):
        off = b.fsub(weight, b.fmul(_nearest(b, table, b.fmul(weight, inverse)), step))
        grown.append(b.fadd(total, b.fmul(b.fmul(off, off), counts)))
    return list(loop.close(grown))


def _search(b: ir.IRBuilder, table: Codes, x: ir.Value, importance: ir.Value, scale: ir.Value) -> ir.Value:
    """The scales of a group of 16 inputs at `x` for 16 rows whose scales are `scale`, as float32."""
    unit = b.fmul(scale, _all(float(-FIRST)))
    ideal = b.select(_above(b, unit, ZERO), b.fdiv(_largest(b, x), unit), ZERO)
    tried = ir.Constant(ir.ArrayType(F32, len(TRIED)), [F32(part) for part in TRIED])
    parts = b.ptrtoint(cgutils.global_constant(b, "tried_scales", tried), I64)
    loop = Loop(b, I64(len(TRIED)), [_all(float("inf")), ZERO])
    best, chosen = loop.sums
    part = splat(b, load(b, b.add(parts, b.mul(loop.number, I64(4))), F32))
    size = b.fsub(b.fadd(b.fmul(ideal, part), _MAGIC), _MAGIC)  # to nearest, ties to even
    size = b.select(_above(b, size, _all(float(LARGEST_SCALE))), _all(float(LARGEST_SCALE)), size)
    both = [size, b.fneg(size)]
    steps = [b.fmul(signed, scale) for signed in both]
    for signed, error in zip(both, _errors(b, table, x, importance, steps), strict=True):
        better = b.fcmp_ordered("<", error, best)
        best, chosen = b.select(better, error, best), b.select(better, signed, chosen)
    return loop.close([best, chosen])[1]


def _strip_quantizer(table: Codes) -> Any:
    """Compile-time maker of a kernel: `quantize_int4` for one strip of codes of any table."""

    @intrinsic
    def quantize_group(typingctx: Any, x: Any, importance: Any, scale: Any, codes: Any, scales: Any) -> Any:
        """All int64 addresses: x [16 inputs][16 rows] f32, importance [16 inputs] f32, scale [16 rows] f32 are
        read; codes [16 inputs][16 rows] u8 and scales [16 rows] i8 are written.
        """

        def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            x, importance, scale, codes, scales = arguments
            scale = load(b, scale, FLOATS)
            chosen = _search(b, table, x, importance, scale)
            b.store(b.fptosi(chosen, _BYTES), b.inttoptr(scales, _BYTES.as_pointer())).align = 1
            inverse = _inverse(b, b.fmul(chosen, scale))
            loop = Loop(b, I64(GROUP), [])
            weight = load(b, b.add(x, b.mul(loop.number, I64(4 * LANES))), FLOATS)
            place = b.inttoptr(b.add(codes, b.mul(loop.number, I64(LANES))), _BYTES.as_pointer())
            b.store(_code(b, table, b.fmul(weight, inverse)), place).align = 1
            loop.close([])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    @exact  # numba would give the vectors' operations a program's freedom, too
    def quantize_strip(x, importance, scale, codes, scales):
        for group in range(scales.shape[0]):
            first = group * GROUP
            quantize_group(
                address_of(x[first]),
                address_of(importance[first:]),
                address_of(scale),
                address_of(codes[first]),
                address_of(scales[group]),
            )

    return quantize_strip


_strip_int4, _strip_int5 = _strip_quantizer(INT4), _strip_quantizer(INT5)


@program
def quantize_int4(
    x: np.ndarray, importance: np.ndarray, scale: np.ndarray, codes: np.ndarray, scales: np.ndarray
) -> None:
    """codes, scales <- the best ones of strips of weights.

    x [strips, cols, 16 rows] f32, importance [cols] f32, scale [strips, 16] f32; codes [strips, cols, 16] u8,
    scales [strips, groups, 16] i8. All weights finite, cols a multiple of 16.
    """
    for strip in range(x.shape[0]):
        _strip_int4(x[strip], importance, scale[strip], codes[strip], scales[strip])


@program
def quantize_int5(
    x: np.ndarray, importance: np.ndarray, scale: np.ndarray, codes: np.ndarray, scales: np.ndarray
) -> None:
    """`quantize_int4` for codes of 5 bits."""
    for strip in range(x.shape[0]):
        _strip_int5(x[strip], importance, scale[strip], codes[strip], scales[strip])
