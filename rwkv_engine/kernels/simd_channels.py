"""Sums along channels, as explicit vector code: strips of channels stay in registers during the loop.

Numba's own loops keep such sums in memory, because it cannot know that the arrays do not overlap.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rwkv_engine.kernels.simd import STEP, UNROLL, LoadStep
from rwkv_engine.kernels.vectors import F32, FLOATS, I64, LANES, WORDS, ZERO, Loop, fma, load, splat, store


def expand_tile(read: LoadStep, size: int, strips: int, tokens: int, paired: bool) -> Any:
    """Make an intrinsic: out [tokens][strips * 16] <- hidden [tokens][rank] @ w [rank][strips * 16].

    read    how STEP weights are read.
    size    bytes of one weight.
    paired  whether `read` returns the even places first.
    strips  a multiple of UNROLL.
    Arguments, all int64: weights, bytes to the next row; rank (1 or more); hidden, bytes to the next token;
    out, bytes to the next token. Weights are read once for all tokens.
    """

    @intrinsic
    def expand(typingctx, weights, pitch, rank, hidden, hidden_pitch, out, out_pitch):
        def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            weights, pitch, rank, hidden, hidden_pitch, out, out_pitch = arguments
            loop = Loop(b, rank, [ZERO] * (strips * tokens))
            here = b.add(weights, b.mul(loop.number, pitch))
            row = [
                w for step in range(strips // UNROLL) for w in read(b, b.add(here, I64(STEP * size * step)))
            ]
            running = []
            for t in range(tokens):
                at = b.add(b.add(hidden, b.mul(hidden_pitch, I64(t))), b.mul(loop.number, I64(4)))
                h = splat(b, load(b, at, F32, 4))
                running += [fma(b, h, row[s], loop.sums[t * strips + s]) for s in range(strips)]
            totals = loop.close(running)
            for place in range(0, len(totals), UNROLL):
                t, s = divmod(place, strips)
                both = (
                    _woven(b, *totals[place : place + UNROLL]) if paired else totals[place : place + UNROLL]
                )
                for number, total in enumerate(both):
                    store(
                        b, total, b.add(b.add(out, b.mul(out_pitch, I64(t))), I64(4 * LANES * (s + number)))
                    )
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return expand


def _woven(b: ir.IRBuilder, even: ir.Value, odd: ir.Value) -> list[ir.Value]:
    """Two vectors of the numbers at even and odd places, put in order."""
    places = [n // 2 + LANES * (n % 2) for n in range(STEP)]
    return [
        b.shuffle_vector(even, odd, ir.Constant(WORDS, part)) for part in (places[:LANES], places[LANES:])
    ]


def wkv7_strips(strips: int) -> Any:
    """Make an intrinsic: `kernels.wkv.wkv7_head` for strips * 16 value channels.

    Arguments, all int64: the state's first row at these channels, bytes to the next row; N; r, w, k, a, b
    [N]; v, y at these channels. It makes two passes over the state's N rows: first the sum that is removed,
    then the update, with the rows in the first-level cache.
    """

    @intrinsic
    def update(typingctx, state, pitch, n, r, w, k, a, b_, v, y):
        def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            state, pitch, n, r, w, k, a, b_, v, y = arguments

            def scalar(vector: ir.Value, loop: Loop) -> ir.Value:
                return splat(b, load(b, b.add(vector, b.mul(loop.number, I64(4))), F32, 4))

            def places(start: ir.Value) -> list[ir.Value]:
                return [b.add(start, I64(4 * LANES * s)) for s in range(strips)]

            loop = Loop(b, n, [ZERO] * strips)
            factor = scalar(a, loop)
            row = places(b.add(state, b.mul(loop.number, pitch)))
            removed = loop.close(
                [
                    fma(b, load(b, at, FLOATS, 4), factor, total)
                    for at, total in zip(row, loop.sums, strict=True)
                ]
            )
            values = [load(b, at, FLOATS, 4) for at in places(v)]
            loop = Loop(b, n, [ZERO] * strips)
            keep, add, key, ask = (scalar(vector, loop) for vector in (w, b_, k, r))
            running = []
            for s, at in enumerate(places(b.add(state, b.mul(loop.number, pitch)))):
                new = fma(b, load(b, at, FLOATS, 4), keep, fma(b, removed[s], add, b.fmul(values[s], key)))
                store(b, new, at)
                running.append(fma(b, new, ask, loop.sums[s]))
            for total, at in zip(loop.close(running), places(y), strict=True):
                store(b, total, at)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return update
