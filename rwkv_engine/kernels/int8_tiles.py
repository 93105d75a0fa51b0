"""Tiles: blocks of a product that are computed at once, and the loop over blocks for tiles of vectors.

A tile multiplies strips of 16 rows of INT8 weights by a few tokens' 16-bit inputs. `Dot` says how an
instruction set multiplies a line of 64 bytes, the weights of 4 inputs for 16 rows; the loop around it is the
same for all. Sums inside a group of 32 inputs are exact integers, so all tiles agree; between groups, sums
are float32. Twin: `int8_layout.unpacked`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rwkv_engine.kernels.pointers import prefetch, prefetch_ahead
from rwkv_engine.kernels.vectors import FLOATS, I8, I32, I64, WORDS, ZERO, Loop, fma, load, store
from rwkv_engine.numbers.int8_layout import BLOCK, BLOCK_BYTES, GROUP, GROUPS, LINE, STRIP

Values = list[ir.Value]


def _nothing(b: ir.IRBuilder) -> None:
    """Vector registers need no preparation."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile size that an instruction set supports.

    strips     strips of 16 rows.
    tokens     tokens that they are multiplied by.
    emit       (builder, arguments of `multiply`) -> None: writes the code of one tile.
    begin      (builder) -> None: code for a thread before its first tile of this size.
    end        (builder) -> None: code after the last one.
    following  lines after its own strips to prefetch per block, so memory is read while others are
               multiplied.
    """

    strips: int
    tokens: int
    emit: Callable[[ir.IRBuilder, Any], None]
    begin: Callable[[ir.IRBuilder], None] = _nothing
    end: Callable[[ir.IRBuilder], None] = _nothing
    following: int = 0


@dataclass(frozen=True, slots=True)
class Dot:
    """How one instruction set multiplies.

    split    whether inputs are planes of upper and lower bytes, or else 16-bit numbers.
    offset   number added to each weight: the sum starts at -offset * the sum of the group's inputs.
    begin    (builder, start [i32]) -> the sums of one strip and token.
    weights  (builder, address) -> a line, ready to multiply.
    inputs   (builder, address of 4 inputs, bytes from the upper to the lower plane) -> the inputs, ready.
    dot      (builder, sums, line, inputs) -> sums.
    total    (builder, sums) -> the 16 rows' integers, <16 x i32>.
    """

    split: bool
    offset: int
    begin: Callable[[ir.IRBuilder, ir.Value], Values]
    weights: Callable[[ir.IRBuilder, ir.Value], Values]
    inputs: Callable[[ir.IRBuilder, ir.Value, ir.Value], Values]
    dot: Callable[[ir.IRBuilder, Values, Values, Values], Values]
    total: Callable[[ir.IRBuilder, Values], ir.Value]


def multiply(tile: Tile) -> Any:
    """Make an intrinsic that computes one tile; its arguments are all int64.

    weights, strip_pitch  address of the first strip, bytes to the next.
    x, plane, x_pitch     address of the first token's inputs, bytes to its lower plane, bytes to the next
                          token.
    start, start_pitch    address of its starts (int32 per group), bytes to the next token's.
    blocks                blocks of a strip.
    out                   address of [tokens][strips * 16] float32, which is written.
    later                 address from which on lines are prefetched to the second-level cache.
    """

    @intrinsic
    def run(typingctx, weights, strip_pitch, x, plane, x_pitch, start, start_pitch, blocks, out, later):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            tile.emit(builder, arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return run


def emitted(emit: Callable[[ir.IRBuilder], None]) -> Any:
    """Make an intrinsic without arguments: a tile's `begin` or `end`."""

    @intrinsic
    def run(typingctx):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            emit(builder)
            return context.get_dummy_value()

        return types.void(), codegen

    return run


def vector_tile(dot: Dot, strips: int, tokens: int, following: int = 0) -> Tile:
    """A tile whose sums stay in vector registers."""
    return Tile(strips, tokens, partial(_emit, dot, strips, tokens, following), following=following)


def _emit(dot: Dot, strips: int, tokens: int, following: int, b: ir.IRBuilder, arguments: Any) -> None:
    """The loop over blocks; reads a block's lines in order, each once for all tokens."""
    weights, strip_pitch, x, plane, x_pitch, start, start_pitch, blocks, out, later = arguments
    pairs = [(s, t) for s in range(strips) for t in range(tokens)]
    loop = Loop(b, blocks, [ZERO] * len(pairs))
    n, grown = loop.number, dict(zip(pairs, loop.sums, strict=True))
    strip_at = [
        b.add(b.add(weights, b.mul(strip_pitch, I64(s))), b.mul(n, I64(BLOCK_BYTES))) for s in range(strips)
    ]
    bytes_each = 1 if dot.split else 2
    token_at = [
        b.add(b.add(x, b.mul(x_pitch, I64(t))), b.mul(n, I64(BLOCK * bytes_each))) for t in range(tokens)
    ]
    start_at = [
        b.add(b.add(start, b.mul(start_pitch, I64(t))), b.mul(n, I64(4 * GROUPS))) for t in range(tokens)
    ]
    for number in range(following):
        prefetch(b, b.add(later, b.mul(b.add(b.mul(n, I64(following)), I64(number)), I64(LINE))), 2)
    for group in range(GROUPS):
        begins = [load(b, b.add(at, I64(4 * group)), I32) if dot.offset else I32(0) for at in start_at]
        sums = {(s, t): dot.begin(b, begins[t]) for s, t in pairs}
        for line in range(group * GROUP // 4, (group + 1) * GROUP // 4):
            here = [b.add(at, I64(LINE * line)) for at in strip_at]
            for place in here:
                prefetch_ahead(b, place)
            lines = [dot.weights(b, place) for place in here]
            for t in range(tokens):
                inputs = dot.inputs(b, b.add(token_at[t], I64(4 * line * bytes_each)), plane)
                for s in range(strips):
                    sums[s, t] = dot.dot(b, sums[s, t], lines[s], inputs)
        for s in range(strips):
            scale = scales(b, b.add(strip_at[s], I64(BLOCK_BYTES - LINE)), group)
            for t in range(tokens):
                grown[s, t] = fma(b, b.sitofp(dot.total(b, sums[s, t]), FLOATS), scale, grown[s, t])
    for at in strip_at:
        prefetch_ahead(b, b.add(at, I64(BLOCK_BYTES - LINE)))
    totals = loop.close([grown[pair] for pair in pairs])
    for (s, t), total in zip(pairs, totals, strict=True):
        store(b, total, b.add(out, I64((t * strips + s) * STRIP * 4)))


@intrinsic
def group_sum(typingctx, upper, lower):
    """Sum of a group's inputs, int32, from the addresses (int64) of its upper and lower bytes.

    Explicit vector code: LLVM unrolls such a short loop into a chain of additions, one per cycle.
    """

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        wide = ir.VectorType(I32, GROUP)
        high, low = (b.sext(load(b, address, ir.VectorType(I8, GROUP)), wide) for address in arguments)
        kind = ir.FunctionType(I32, [wide])
        reduce = cgutils.get_or_insert_function(b.module, kind, f"llvm.vector.reduce.add.v{GROUP}i32")
        return b.call(reduce, [b.add(b.shl(high, wide([8] * GROUP)), low)])

    return types.int32(types.int64, types.int64), codegen


def scales(b: ir.IRBuilder, address: ir.Value, group: int) -> ir.Value:
    """A group's scales for 16 rows: BF16, in the lower (first group) or upper halves of a line's words."""
    words = load(b, address, WORDS)
    bits = b.and_(words, WORDS([0xFFFF0000] * STRIP)) if group else b.shl(words, WORDS([16] * STRIP))
    return b.bitcast(bits, FLOATS)
