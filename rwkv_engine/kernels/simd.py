"""Dot products over stored weights, as explicit vector code.

Numba vectorises such loops too, but it reads several rows at once and cannot prefetch; one sequential stream with a
software prefetch some KiB ahead reads memory at 14 GB/s on a core where the plain loop reaches 9. The code is LLVM IR
over vectors of 16 floats, which LLVM splits to whatever the target has (one AVX-512 register, two of AVX2, four of NEON).
Twins in plain numpy: `formats.*.unpack` and `@`.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rwkv_engine.kernels.pointers import prefetch_line

#: floats in a vector; a row's tail shorter than STEP is left to the caller
LANES = 16
UNROLL = 2
STEP = LANES * UNROLL
#: how far ahead of the reading a line is asked for, in bytes (best of 1.5, 4, 6 and 12 KiB, all within 5 %)
AHEAD = 4096

I16, I32, I64, F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOATS, WORDS, HALVES = (ir.VectorType(kind, LANES) for kind in (F32, I32, I16))
FLAGS = ("reassoc", "contract", "nsz")
#: emit code that reads 16 numbers, or STEP numbers as vectors of 16, at an address
Load = Callable[[ir.IRBuilder, ir.Value], ir.Value]
LoadStep = Callable[[ir.IRBuilder, ir.Value], list[ir.Value]]


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = align
    return value


def load_f32(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """16 float32."""
    return _load(builder, address, FLOATS, 4)


def load_bf16(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """16 BF16 numbers: the upper halves of float32."""
    bits = builder.zext(_load(builder, address, HALVES, 2), WORDS)
    return builder.bitcast(builder.shl(bits, WORDS([16] * LANES)), FLOATS)


def load_f16(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """16 F16 numbers, by moving the fields and rescaling the exponent: exact for all finite numbers.

    Not `fpext half`: without F16C that becomes a call of a routine that a JIT-compiled function may not find.
    """
    bits = builder.zext(_load(builder, address, HALVES, 2), WORDS)
    moved = builder.shl(builder.and_(bits, WORDS([0x7FFF] * LANES)), WORDS([13] * LANES))
    size = builder.fmul(builder.bitcast(moved, FLOATS), FLOATS([2.0**112] * LANES))
    sign = builder.shl(builder.and_(bits, WORDS([0x8000] * LANES)), WORDS([16] * LANES))
    return builder.bitcast(builder.or_(builder.bitcast(size, WORDS), sign), FLOATS)


def in_order(load: Load, size: int) -> LoadStep:
    """STEP numbers in their order, from two loads of `load`; `size` is the bytes of one."""
    return lambda builder, address: [load(builder, builder.add(address, I64(u * LANES * size))) for u in range(UNROLL)]


def bf16_pairs(builder: ir.IRBuilder, address: ir.Value) -> list[ir.Value]:
    """STEP BF16 numbers, those at even places and then those at odd ones, from one load of a whole cache line.

    Reads memory 8 % faster than two loads of half a line; the inputs must be arranged alike (`matmul_float.arrange`).
    """
    pairs = _load(builder, address, WORDS, 2)
    even, odd = builder.shl(pairs, WORDS([16] * LANES)), builder.and_(pairs, WORDS([0xFFFF0000] * LANES))
    return [builder.bitcast(even, FLOATS), builder.bitcast(odd, FLOATS)]


def dot_row(load: LoadStep, size: int) -> Any:
    """Compile-time maker of an intrinsic that computes one dot product: (weights, x, n) -> float32.

    weights and x are int64 addresses, n is a positive multiple of STEP; `size` is the bytes of one weight.
    """

    @intrinsic
    def dot(typingctx, weights, x, n):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            row, inputs, count = arguments
            loop = _Loop(builder, count, UNROLL)
            here = builder.add(row, builder.mul(loop.k, I64(size)))
            for line in range(0, STEP * size, 64):
                prefetch_line(builder, builder.add(here, I64(AHEAD + line)))
            at = builder.add(inputs, builder.mul(loop.k, I64(4)))
            numbers = in_order(load_f32, 4)(builder, at)
            products = zip(load(builder, here), numbers, loop.sums, strict=True)
            return _total(builder, loop.close([_fma(builder, w, number, total) for w, number, total in products]))

        return types.float32(types.int64, types.int64, types.int64), codegen

    return dot


def dot_tile(load: Load, size: int, rows: int, tokens: int) -> Any:
    """Compile-time maker of an intrinsic that computes `rows` x `tokens` dot products at once.

    load    how 16 weights are read; size  bytes of one weight.
    The intrinsic's arguments, all int64: weights, row pitch [bytes], x, token pitch [bytes], n (a positive multiple of STEP),
    out, out's token pitch [bytes]. It writes out[token][row] float32. Weights are read once per call, in order.
    """

    @intrinsic
    def tile(typingctx, weights, row_pitch, x, token_pitch, n, out, out_pitch):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            _emit_tile(builder, arguments, load, size, rows, tokens)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return tile


def _emit_tile(builder: ir.IRBuilder, arguments: Any, load: Load, size: int, rows: int, tokens: int) -> None:
    """The loop of `dot_tile`: one accumulator for each product, which is enough independent work for rows x tokens > 3."""
    weights, row_pitch, x, token_pitch, n, out, out_pitch = arguments
    row_at = [builder.add(weights, builder.mul(row_pitch, I64(r))) for r in range(rows)]
    token_at = [builder.add(x, builder.mul(token_pitch, I64(t))) for t in range(tokens)]
    loop = _Loop(builder, n, rows * tokens)
    running = list(loop.sums)
    for u in range(UNROLL):
        place = builder.add(loop.k, I64(u * LANES))
        inputs = [load_f32(builder, builder.add(at, builder.mul(place, I64(4)))) for at in token_at]
        for r, at in enumerate(row_at):
            here = builder.add(at, builder.mul(place, I64(size)))
            if u * LANES * size % 64 == 0:  # once for every cache line
                prefetch_line(builder, builder.add(here, I64(AHEAD)))
            w = load(builder, here)
            for t in range(tokens):
                running[r * tokens + t] = _fma(builder, w, inputs[t], running[r * tokens + t])
    loop.close(running)
    for r in range(rows):
        for t in range(tokens):
            at = builder.add(builder.add(out, builder.mul(out_pitch, I64(t))), I64(4 * r))
            store = builder.store(_total(builder, running[r * tokens + t]), builder.inttoptr(at, F32.as_pointer()))
            store.align = 4


class _Loop:
    """A loop under construction: k = 0, STEP, 2 STEP ... below n, with vector sums that start at zero."""

    def __init__(self, builder: ir.IRBuilder, n: ir.Value, sums: int) -> None:
        self._builder, self._n, self._before = builder, n, builder.block
        self._body, self._after = builder.append_basic_block("dot"), builder.append_basic_block("sum")
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self.k = builder.phi(I64)
        self.sums = [builder.phi(FLOATS) for _ in range(sums)]

    def close(self, running: list[ir.Value]) -> ir.Value:
        """End the body, `running` being the sums after it; returns their total, in the block behind the loop."""
        builder = self._builder
        following = builder.add(self.k, I64(STEP))
        for phi, first, value in zip(
            [self.k, *self.sums], [I64(0)] + [FLOATS([0.0] * LANES)] * len(running), [following, *running], strict=True
        ):
            phi.add_incoming(first, self._before)
            phi.add_incoming(value, self._body)
        builder.cbranch(builder.icmp_signed("<", following, self._n), self._body, self._after)
        builder.position_at_end(self._after)
        total = running[0]
        for value in running[1:]:
            total = builder.fadd(total, value, flags=FLAGS)
        return total


def _fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.v16f32"), [a, b, c])


def _total(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """Sum of a vector's 16 floats."""
    kind = ir.FunctionType(F32, [F32, FLOATS])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.fadd.v16f32")
    return builder.call(function, [F32(0.0), vector], fastmath=("reassoc",))
