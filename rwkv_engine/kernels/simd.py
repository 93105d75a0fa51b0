"""Dot products over stored weights, as explicit vector code.

Numba vectorises such loops too, but it reads several rows at once and cannot prefetch. One sequential stream
with a software prefetch some KiB ahead reads 14 GB/s on a core where the plain loop reaches 9
(`cpu.reads_ahead` says where the prefetch is omitted). The code is LLVM IR over vectors of 16 floats, which
LLVM splits to whatever the target has (one AVX-512 register, two of AVX2, four of NEON).
Twins in plain NumPy: `formats.*.unpack` and `@`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rwkv_engine.kernels.pointers import prefetch_ahead
from rwkv_engine.kernels.vectors import (
    F32,
    FLOATS,
    I16,
    I32,
    I64,
    LANES,
    WORDS,
    ZERO,
    Loop,
    fetch,
    fma,
    load,
    store,
)

#: vectors of a row read at once; the caller handles a row's tail shorter than STEP
UNROLL = 2
STEP = LANES * UNROLL

HALVES = ir.VectorType(I16, LANES)
#: emits code that reads 16 numbers, or STEP numbers as vectors of 16, at an address
Load = Callable[[ir.IRBuilder, ir.Value], ir.Value]
LoadStep = Callable[[ir.IRBuilder, ir.Value], list[ir.Value]]


def load_f32(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """16 float32."""
    return load(builder, address, FLOATS, 4)


def load_bf16(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """16 BF16 numbers: the upper halves of float32."""
    bits = builder.zext(load(builder, address, HALVES, 2), WORDS)
    return builder.bitcast(builder.shl(bits, WORDS([16] * LANES)), FLOATS)


def load_f16(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """16 F16 numbers, by moving the fields and rescaling the exponent, whose largest stands for infinity and
    NaN here as there.

    Not `fpext half`: without F16C it becomes a call to a routine that JIT-compiled code may not find.
    """
    bits = builder.zext(load(builder, address, HALVES, 2), WORDS)
    moved = builder.shl(builder.and_(bits, WORDS([0x7FFF] * LANES)), WORDS([13] * LANES))
    size = builder.fmul(builder.bitcast(moved, FLOATS), FLOATS([2.0**112] * LANES))
    sign = builder.shl(builder.and_(bits, WORDS([0x8000] * LANES)), WORDS([16] * LANES))
    beyond = builder.icmp_unsigned(">=", moved, WORDS([0x7C00 << 13] * LANES))
    largest = builder.select(beyond, WORDS([0x7F800000] * LANES), WORDS([0] * LANES))
    whole = builder.or_(builder.or_(builder.bitcast(size, WORDS), sign), largest)
    return builder.bitcast(whole, FLOATS)


def in_order(read: Load, size: int) -> LoadStep:
    """STEP numbers in order, from two loads by `read`; `size` is the bytes of one number."""
    return lambda builder, address: [
        read(builder, builder.add(address, I64(u * LANES * size))) for u in range(UNROLL)
    ]


def bf16_pairs(builder: ir.IRBuilder, address: ir.Value) -> list[ir.Value]:
    """STEP BF16 numbers, first those at even places, then those at odd ones, from one load of a cache line.

    Reads memory 8 % faster than two loads of half a line; the inputs need the same order (`apart`).
    """
    pairs = load(builder, address, WORDS, 2)
    even, odd = builder.shl(pairs, WORDS([16] * LANES)), builder.and_(pairs, WORDS([0xFFFF0000] * LANES))
    return [builder.bitcast(even, FLOATS), builder.bitcast(odd, FLOATS)]


@intrinsic
def apart(typingctx, out, x, n):
    """out [n] <- x [n] (int64 addresses): in each whole STEP first the even places, then the odd ones.

    n is a positive multiple of STEP. `bf16_pairs` needs this order; numba's own loop would not vectorise.
    """

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        out, x, n = arguments
        kind = ir.VectorType(F32, STEP)
        loop = Loop(b, n, [], STEP)
        offset = b.mul(loop.number, I64(4))
        numbers = load(b, b.add(x, offset), kind, 4)
        for half in (0, 1):
            places = ir.Constant(WORDS, list(range(half, STEP, UNROLL)))
            taken = b.shuffle_vector(numbers, ir.Constant(kind, ir.Undefined), places)
            store(b, taken, b.add(b.add(out, offset), I64(4 * LANES * half)))
        loop.close([])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


def dot_row(read: LoadStep, size: int, sums: int) -> Any:
    """Make an intrinsic that computes one dot product: (weights, x, n) -> float32.

    size  bytes of one weight.
    sums  accumulators, a multiple of UNROLL.
    weights and x are int64 addresses, n is a positive multiple of sums * LANES.
    """

    @intrinsic
    def dot(typingctx, weights, x, n):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            row, inputs, count = arguments
            loop = Loop(builder, count, [ZERO] * sums, sums * LANES)
            here = builder.add(row, builder.mul(loop.number, I64(size)))
            for line in range(0, sums * LANES * size, 64):
                prefetch_ahead(builder, builder.add(here, I64(line)))
            at = builder.add(inputs, builder.mul(loop.number, I64(4)))
            running: list[ir.Value] = []
            for step in range(0, sums, UNROLL):
                weights = read(builder, builder.add(here, I64(step * LANES * size)))
                numbers = in_order(load_f32, 4)(builder, builder.add(at, I64(step * LANES * 4)))
                totals = loop.sums[step : step + UNROLL]
                running += [
                    fma(builder, w, number, total)
                    for w, number, total in zip(weights, numbers, totals, strict=True)
                ]
            return _total(builder, loop.close(running))

        return types.float32(types.int64, types.int64, types.int64), codegen

    return dot


def dot_tile(read: LoadStep, size: int, rows: int, tokens: int, sums: int) -> Any:
    """Make an intrinsic that computes `rows` x `tokens` dot products at once.

    read  how STEP weights are read.
    size  bytes of one weight.
    sums  accumulators per product: 1, which is enough independent work for rows x tokens > 3, or as many as
          `dot_row` has, to add in the same order.
    The intrinsic's arguments, all int64: weights, row pitch [bytes], x, token pitch [bytes], n (a positive
    multiple of STEP, and of sums * LANES), out, out's token pitch [bytes], address from which on lines are prefetched,
    so many for each STEP or sums * LANES numbers of a row. It writes out[token][row] float32. Weights are read once per
    call, in order.
    """

    @intrinsic
    def tile(typingctx, weights, row_pitch, x, token_pitch, n, out, out_pitch, later, lines):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            _emit_tile(builder, arguments, read, size, rows, tokens, sums)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return tile


def _emit_tile(
    builder: ir.IRBuilder, arguments: Any, read: LoadStep, size: int, rows: int, tokens: int, sums: int
) -> None:
    """The loop of `dot_tile`; accumulators of row r and token t start at (r * tokens + t) * sums."""
    weights, row_pitch, x, token_pitch, n, out, out_pitch, later, lines = arguments
    row_at = [builder.add(weights, builder.mul(row_pitch, I64(r))) for r in range(rows)]
    token_at = [builder.add(x, builder.mul(token_pitch, I64(t))) for t in range(tokens)]
    vectors = max(sums, UNROLL)
    loop = Loop(builder, n, [ZERO] * (rows * tokens * sums), vectors * LANES)
    running = list(loop.sums)
    if sums > 1:
        done = builder.mul(builder.udiv(loop.number, I64(vectors * LANES)), lines)
        fetch(builder, builder.add(later, builder.mul(done, I64(64))), lines)
    for u in range(vectors):
        place = builder.add(loop.number, I64(u * LANES))
        inputs = [load_f32(builder, builder.add(at, builder.mul(place, I64(4)))) for at in token_at]
        for r, at in enumerate(row_at):
            here = builder.add(at, builder.mul(loop.number, I64(size)))
            if u * LANES * size % 64 == 0:  # once per cache line
                prefetch_ahead(builder, builder.add(here, I64(u * LANES * size)))
            step, half = divmod(u, UNROLL)
            w = read(builder, builder.add(here, I64(step * STEP * size)))[
                half
            ]  # the other half is read in its own round
            for t in range(tokens):
                number = (r * tokens + t) * sums + u % sums
                running[number] = fma(builder, w, inputs[t], running[number])
    closed = loop.close(running)
    for r in range(rows):
        for t in range(tokens):
            total = _total(builder, closed[(r * tokens + t) * sums : (r * tokens + t + 1) * sums])
            store(builder, total, builder.add(builder.add(out, builder.mul(out_pitch, I64(t))), I64(4 * r)))


def _total(builder: ir.IRBuilder, vectors: Sequence[ir.Value]) -> ir.Value:
    """Sum of all numbers of 1, 2 or 4 vectors of 16 floats.

    It adds half by half, as written, if the surrounding function may not reorder sums
    (`matmul_float.IN_ORDER`). Otherwise LLVM would choose an order for each tile, and a token's bits would
    depend on the number of tokens in its pass.
    """
    while len(vectors) > 1:
        vectors = [builder.fadd(*vectors[n : n + 2]) for n in range(0, len(vectors), 2)]
    total, width = vectors[0], LANES
    while width > 1:
        width //= 2
        low, high = (ir.Constant(ir.VectorType(I32, width), list(range(at, at + width))) for at in (0, width))
        total = builder.fadd(*(builder.shuffle_vector(total, total, half) for half in (low, high)))
    return builder.extract_element(total, I32(0))
