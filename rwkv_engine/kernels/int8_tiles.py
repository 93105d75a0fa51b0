"""Tiles: blocks of a product that are computed at once, and the loop over blocks for tiles of vectors.

A tile multiplies strips of 16 rows of packed weights by a few tokens' 16-bit inputs. `Dot` says how an
instruction set multiplies 64 bytes, the weights of 4 inputs for 16 rows, and `Layout` how a format's strips
give them; the loop around them is the same everywhere. All sums inside a group of inputs are exact integers,
so every tile gives the same ones; between groups, they are float32. Twins: `unpacked` of the layouts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rwkv_engine.kernels.pointers import prefetch_ahead, prefetch_far, reads_far
from rwkv_engine.kernels.vectors import FLOATS, I8, I32, I64, WORDS, ZERO, Loop, fetch, fma, load, store
from rwkv_engine.numbers.int8_layout import BLOCK, GROUP, GROUPS, LINE, STRIP

Values = list[ir.Value]
#: lines of a block that are prefetched far ahead for a single token: two neighbours make a Zen 4 read on. One token of
#: 4,096 x 1,024 and of 1,024 x 4,096 INT8 weights from memory: 1.13 and 1.04 times as fast with two lanes, 1.02 and 1.20
#: with one; all lines: 1.08 and 0.97, 0.86 and 1.05
FAR_LINES = 2
#: bytes of a short strip: it and its inputs stay in a first-level cache of 32 KB
SHORT_BYTES = 16384


def _nothing(b: ir.IRBuilder) -> None:
    """Vector registers need no preparation."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile size that an instruction set supports.

    strips  strips of 16 rows.
    tokens  tokens that they are multiplied by.
    emit    (builder, arguments of `multiply`) -> None: writes the code of one tile.
    begin   (builder) -> None: code for a thread before its first tile of this size.
    end     (builder) -> None: code after the last one.
    spare   tokens that may be missing: what it computes for them is not used.
    apart   whether it is a function of its own. Otherwise LLVM would keep the constants of all tiles of a product in
            registers at once.
    """

    strips: int
    tokens: int
    emit: Callable[[ir.IRBuilder, Any], None]
    begin: Callable[[ir.IRBuilder], None] = _nothing
    end: Callable[[ir.IRBuilder], None] = _nothing
    spare: int = 0
    apart: bool = False


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
    part     bytes of one vector of a line.
    widened  (builder, vectors of `part` signed bytes, or of unsigned ones where there is an offset) -> a
             line, made ready.
    """

    split: bool
    offset: int
    begin: Callable[[ir.IRBuilder, ir.Value], Values]
    weights: Callable[[ir.IRBuilder, ir.Value], Values]
    inputs: Callable[[ir.IRBuilder, ir.Value, ir.Value], Values]
    dot: Callable[[ir.IRBuilder, Values, Values, Values], Values]
    total: Callable[[ir.IRBuilder, Values], ir.Value]
    part: int
    widened: Callable[[ir.IRBuilder, Values], Values]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a format's weights lie in a strip: blocks of 64 inputs, each some lines of weights, then perhaps
    others that belong to them, then one of scales.

    group    inputs of a group.     groups  of a block.     quads  of inputs in a line of weights.
    weights  (builder, dot, address of a block, number of a quad in it) -> the quad's weights, made ready.
    scales   (builder, address of a line of scales, group) -> the 16 rows' scales, <16 x float>.
    far      lines of a block that are prefetched far ahead for a single token, in strips that with their inputs do not
             fit into the first-level cache.
    others   lines of a block between its weights and its scales.
    tail     bytes behind the last block.
    factor   None, or (builder, address of the tail) -> by what the 16 rows' sums are multiplied at last.
    """

    group: int
    groups: int
    quads: int
    weights: Callable[[ir.IRBuilder, Dot, ir.Value, int], Values]
    scales: Callable[[ir.IRBuilder, ir.Value, int], ir.Value]
    far: int
    others: int = 0
    tail: int = 0
    factor: Callable[[ir.IRBuilder, ir.Value], ir.Value] | None = None

    @property
    def lines(self) -> int:
        """Lines of weights of a group."""
        return self.group // 4 // self.quads

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return (self.groups * self.lines + self.others + 1) * LINE


def multiply(tile: Tile) -> Any:
    """Make an intrinsic that computes one tile; its arguments are all int64.

    weights, strip_pitch  address of the first strip, bytes to the next.
    x, plane, x_pitch     address of the first token's inputs, bytes to its lower plane, bytes to the next
                          token.
    start, start_pitch    address of its starts (int32 per group), bytes to the next token's.
    blocks                blocks of a strip.
    out                   address of [tokens][strips * 16] float32, which is written.
    later, lines          address from which on lines are prefetched to the second-level cache, so many in each
                          block: memory is read while others are multiplied. A tile of 1 x 1 does not.
    """

    @intrinsic
    def run(
        typingctx, weights, strip_pitch, x, plane, x_pitch, start, start_pitch, blocks, out, later, lines
    ):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            if tile.apart:
                _call_apart(builder, tile, arguments)
            else:
                tile.emit(builder, arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11), codegen

    return run


def _call_apart(b: ir.IRBuilder, tile: Tile, arguments: Sequence[ir.Value]) -> None:
    """Call a tile that is a function of its own, which is written into the module."""
    kind = ir.FunctionType(ir.VoidType(), [I64] * len(arguments))
    function = ir.Function(b.module, kind, b.module.get_unique_name(f"tile_{tile.strips}x{tile.tokens}"))
    function.linkage = "internal"
    function.attributes.add("noinline")
    inside = ir.IRBuilder(function.append_basic_block("entry"))
    tile.emit(inside, function.args)
    inside.ret_void()
    b.call(function, arguments)


def emitted(emit: Callable[[ir.IRBuilder], None]) -> Any:
    """Make an intrinsic without arguments: a tile's `begin` or `end`."""

    @intrinsic
    def run(typingctx):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            emit(builder)
            return context.get_dummy_value()

        return types.void(), codegen

    return run


def vector_tile(dot: Dot, strips: int, tokens: int, layout: Layout | None = None) -> Tile:
    """A tile whose sums stay in vector registers; of INT8 weights, if no layout is given.

    3 tokens take one of 4: weights are then read once, and memory is slower than the products of a token.
    """
    emit = partial(_emit, dot, layout or INT8, strips, tokens)
    return Tile(strips, tokens, emit, spare=1 if tokens == 4 else 0, apart=layout is not None)


def _emit(dot: Dot, layout: Layout, strips: int, tokens: int, b: ir.IRBuilder, arguments: Any) -> None:
    """The loop over blocks, for a single token perhaps one for short strips and one for long ones."""
    loop = partial(_emit_loop, dot, layout, strips, tokens, b, arguments)
    if strips * tokens > 1 or not reads_far(b):
        loop(0)
    elif layout.far == FAR_LINES:
        loop(FAR_LINES)
    else:
        *_, blocks, _out, _later, _lines = arguments
        long = b.icmp_signed(">", b.mul(blocks, I64(layout.block_bytes)), I64(SHORT_BYTES))
        with b.if_else(long) as (of_long, of_short):
            with of_long:
                loop(layout.far)
            with of_short:
                loop(FAR_LINES)


def _emit_loop(
    dot: Dot, layout: Layout, strips: int, tokens: int, b: ir.IRBuilder, arguments: Any, far: int
) -> None:
    """A block's lines are read in order, each once for all tokens; the first `far` ones are prefetched far ahead."""
    weights, strip_pitch, x, plane, x_pitch, start, start_pitch, blocks, out, later, lines = arguments
    pairs = [(s, t) for s in range(strips) for t in range(tokens)]
    loop = Loop(b, blocks, [ZERO] * len(pairs))
    n, grown = loop.number, dict(zip(pairs, loop.sums, strict=True))
    first_at = [b.add(weights, b.mul(strip_pitch, I64(s))) for s in range(strips)]
    strip_at = [b.add(at, b.mul(n, I64(layout.block_bytes))) for at in first_at]
    bytes_each = 1 if dot.split else 2
    token_at = [
        b.add(b.add(x, b.mul(x_pitch, I64(t))), b.mul(n, I64(BLOCK * bytes_each))) for t in range(tokens)
    ]
    start_at = [
        b.add(b.add(start, b.mul(start_pitch, I64(t))), b.mul(n, I64(4 * layout.groups)))
        for t in range(tokens)
    ]
    # with narrow registers, codes leave none for it
    if len(pairs) > 1 and (layout is INT8 or dot.part == LINE):
        fetch(b, b.add(later, b.mul(b.mul(n, lines), I64(LINE))), lines)
    for line in range(far):
        prefetch_far(b, b.add(strip_at[0], I64(LINE * line)))
    scale_at = [b.add(at, I64(layout.block_bytes - LINE)) for at in strip_at]
    for group in range(layout.groups):
        begins = [load(b, b.add(at, I64(4 * group)), I32) if dot.offset else I32(0) for at in start_at]
        sums = {(s, t): dot.begin(b, begins[t]) for s, t in pairs}
        each = layout.lines * layout.quads
        for quad in range(group * each, (group + 1) * each):
            line, place = divmod(quad, layout.quads)
            if place == 0:
                for at in strip_at:
                    prefetch_ahead(b, b.add(at, I64(LINE * line)))
            here = [layout.weights(b, dot, at, quad) for at in strip_at]
            for t in range(tokens):
                inputs = dot.inputs(b, b.add(token_at[t], I64(4 * quad * bytes_each)), plane)
                for s in range(strips):
                    sums[s, t] = dot.dot(b, sums[s, t], here[s], inputs)
        for s in range(strips):
            scale = layout.scales(b, scale_at[s], group)
            for t in range(tokens):
                grown[s, t] = fma(b, b.sitofp(dot.total(b, sums[s, t]), FLOATS), scale, grown[s, t])
        if dot.part == LINE and len(pairs) > 1:
            grown = dict(zip(pairs, _settled(b, [grown[pair] for pair in pairs]), strict=True))
    for at, number in product(scale_at, range(layout.others + 1)):
        prefetch_ahead(b, b.sub(at, I64(LINE * number)))
    totals = dict(zip(pairs, loop.close([grown[pair] for pair in pairs]), strict=True))
    tails = [b.add(at, b.mul(blocks, I64(layout.block_bytes))) for at in first_at]
    factors = [layout.factor(b, at) if layout.factor else None for at in tails]
    for (s, t), total in totals.items():
        whole = total if factors[s] is None else b.fmul(total, factors[s])
        store(b, whole, b.add(out, I64((t * strips + s) * STRIP * 4)))


def _settled(b: ir.IRBuilder, sums: Values) -> Values:
    """The same vectors of 512 bits, as something that is known before anything that follows is loaded.

    Otherwise LLVM would put off adding up until the end of the block, and spill the integers of all its groups.
    """
    kinds = [total.type for total in sums]
    rules = ["=v"] * len(sums) + [str(n) for n in range(len(sums))] + ["~{memory}"]
    same = b.asm(ir.FunctionType(ir.LiteralStructType(kinds), kinds), "", ",".join(rules), sums, True)
    return [b.extract_value(same, n) for n in range(len(sums))]


def group_sum(group: int) -> Any:
    """Compile-time maker of an intrinsic: the sum of a group's inputs, int32, from the addresses (int64) of
    its upper and of its lower bytes.

    Explicit vector code: LLVM unrolls such a short loop into a chain of additions, one per cycle.
    """
    narrow, wide = ir.VectorType(I8, group), ir.VectorType(I32, group)

    @intrinsic
    def run(typingctx, upper, lower):
        def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            high, low = (b.sext(load(b, address, narrow), wide) for address in arguments)
            kind = ir.FunctionType(I32, [wide])
            reduce = cgutils.get_or_insert_function(b.module, kind, f"llvm.vector.reduce.add.v{group}i32")
            return b.call(reduce, [b.add(b.shl(high, wide([8] * group)), low)])

        return types.int32(types.int64, types.int64), codegen

    return run


def scales(b: ir.IRBuilder, address: ir.Value, group: int) -> ir.Value:
    """A group's scales for 16 rows: BF16, in the lower (first group) or upper halves of a line's words."""
    words = load(b, address, WORDS)
    bits = b.and_(words, WORDS([0xFFFF0000] * STRIP)) if group else b.shl(words, WORDS([16] * STRIP))
    return b.bitcast(bits, FLOATS)


INT8 = Layout(
    GROUP,
    GROUPS,
    1,
    lambda b, dot, block, quad: dot.weights(b, b.add(block, I64(LINE * quad))),
    scales,
    FAR_LINES,
)
