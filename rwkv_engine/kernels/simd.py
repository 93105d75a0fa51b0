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

#: floats in a vector; a row's tail shorter than UNROLL * LANES is left to the caller
LANES = 16
UNROLL = 2
STEP = LANES * UNROLL
#: how far ahead of the reading a line is asked for, in bytes (best of 1.5, 4, 6 and 12 KiB, all within 5 %)
AHEAD = 4096

I16, I32, I64, F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOATS, WORDS, HALVES = (ir.VectorType(kind, LANES) for kind in (F32, I32, I16))
FLAGS = ("reassoc", "contract", "nsz")


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


def dot_tile(load: Callable[[ir.IRBuilder, ir.Value], ir.Value], size: int, rows: int, tokens: int) -> Any:
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


def _emit_tile(builder: ir.IRBuilder, arguments: Any, load: Any, size: int, rows: int, tokens: int) -> None:
    """The loop of `dot_tile`: UNROLL independent accumulators for a single product, one for each product of a tile."""
    weights, row_pitch, x, token_pitch, n, out, out_pitch = arguments
    chains = UNROLL if rows * tokens == 1 else 1
    fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(FLOATS, [FLOATS] * 3), "llvm.fmuladd.v16f32")
    total = cgutils.get_or_insert_function(builder.module, ir.FunctionType(F32, [F32, FLOATS]), "llvm.vector.reduce.fadd.v16f32")
    before, loop, after = builder.block, builder.append_basic_block("dot"), builder.append_basic_block("sum")
    row_at = [builder.add(weights, builder.mul(row_pitch, I64(r))) for r in range(rows)]
    token_at = [builder.add(x, builder.mul(token_pitch, I64(t))) for t in range(tokens)]
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(I64)
    sums = {(r, t, c): builder.phi(FLOATS) for r in range(rows) for t in range(tokens) for c in range(chains)}
    running: dict[tuple[int, int, int], ir.Value] = dict(sums)
    for u in range(UNROLL):
        inputs = [load_f32(builder, builder.add(at, builder.mul(builder.add(k, I64(u * LANES)), I64(4)))) for at in token_at]
        for r, at in enumerate(row_at):
            here = builder.add(at, builder.mul(builder.add(k, I64(u * LANES)), I64(size)))
            if u * LANES * size % 64 == 0:  # once for every cache line
                prefetch_line(builder, builder.add(here, I64(AHEAD)))
            w = load(builder, here)
            for t in range(tokens):
                key = (r, t, u % chains)
                running[key] = builder.call(fma, [w, inputs[t], running[key]])
    end = builder.block
    following = builder.add(k, I64(STEP))
    k.add_incoming(I64(0), before)
    k.add_incoming(following, end)
    for key, phi in sums.items():
        phi.add_incoming(FLOATS([0.0] * LANES), before)
        phi.add_incoming(running[key], end)
    builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
    builder.position_at_end(after)
    for r in range(rows):
        for t in range(tokens):
            vector = running[r, t, 0]
            for c in range(1, chains):
                vector = builder.fadd(vector, running[r, t, c], flags=FLAGS)
            number = builder.call(total, [F32(0.0), vector], fastmath=("reassoc",))
            at = builder.add(builder.add(out, builder.mul(out_pitch, I64(t))), I64(4 * r))
            store = builder.store(number, builder.inttoptr(at, F32.as_pointer()))
            store.align = 4
