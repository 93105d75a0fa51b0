"""Tiles over matrices that are stored by units (`unit_layout`): only the weights of some inputs are read.

64 rows of a group are multiplied at once. The bytes of four units are merged into lines [16 rows][4 inputs], as
`int8_levels` multiplies them: in registers, where a single tile uses them, else in the first-level cache. The
group's sum is added to the product so far. Sums are those of `int8_tiles`, bit for bit: exact integers in a group,
float32 between groups, in order. A unit that is left out would add zero.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rwkv_engine.kernels.int8_tiles import Dot, Values
from rwkv_engine.kernels.pointers import prefetch
from rwkv_engine.kernels.vectors import FLOATS, I8, I16, I32, I64, WORDS, Loop, fma, load, parted, store
from rwkv_engine.numbers.int8_layout import LINE, STRIP
from rwkv_engine.numbers.unit_layout import ROWS, STRIPS

_PAIRS = ir.VectorType(I16, ROWS // 2)
_BYTES, _HALVES = ir.VectorType(I8, ROWS), ir.VectorType(I16, STRIP)
#: bytes of a group's scales of 16 rows
SCALE_BYTES = 2 * STRIP
#: quads behind the current one, of which the last is prefetched
AHEAD = 8


def _unit(b: ir.IRBuilder, dot: Dot, address: ir.Value) -> ir.Value:
    """The weights of 64 rows of an input, <64 x i8>, of which `dot.widened` takes parts."""
    numbers = load(b, address, _BYTES)
    return b.xor(numbers, _BYTES([-128] * ROWS)) if dot.offset else numbers


def _scales(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """BF16 scales of 16 rows."""
    bits = b.zext(load(b, address, _HALVES), WORDS)
    return b.bitcast(b.shl(bits, WORDS([16] * STRIP)), FLOATS)


def _zipped(b: ir.IRBuilder, pair: Values, upper: bool) -> ir.Value:
    """Elements of two vectors by turns, of the lower or upper half of every 16 bytes (x86 `punpck`, ARM `zip`)."""
    count = pair[0].type.count
    part = count // 4  # elements of 16 bytes
    order = [
        place + number
        for lane in range(0, count, part)
        for place in range(lane + upper * part // 2, lane + (upper + 1) * part // 2)
        for number in (0, count)
    ]
    return b.shuffle_vector(pair[0], pair[1], ir.Constant(ir.VectorType(I32, count), order))


def _merged(b: ir.IRBuilder, units: Values) -> Values:
    """Four units' weights for 64 rows as the lines of 4 strips."""
    low, high = (
        [b.bitcast(_zipped(b, units[at : at + 2], upper), _PAIRS) for at in (0, 2)] for upper in (False, True)
    )
    return [b.bitcast(_zipped(b, pairs, upper), _BYTES) for pairs in (low, high) for upper in (False, True)]


def _quad(b: ir.IRBuilder, dot: Dot, at: ir.Value, places: ir.Value) -> Values:
    """The lines of the quad of units whose places (int32, from `at`) are there; a later quad is prefetched.

    To the second-level cache: at a power of two between units, the first one has no place for so many.
    """
    for k in range(4):
        later = load(b, b.add(places, I64(16 * AHEAD + 4 * k)), I32)
        prefetch(b, b.add(at, b.sext(later, I64)), 2)
    here = [b.add(at, b.sext(load(b, b.add(places, I64(4 * k)), I32), I64)) for k in range(4)]
    return _merged(b, [_unit(b, dot, address) for address in here])


def gathering(dot: Dot) -> Any:
    """Make an intrinsic that writes lines [quads][4 strips][64 bytes]; its arguments are int64:

    lines   address to write to.
    at      address of the matrix at the first of the 64 rows.
    places  address of the places of the quads' units, int32 [quads + AHEAD][4], in bytes from `at`.
    quads   1 or more.
    """

    @intrinsic
    def run(typingctx, lines, at, places, quads):
        def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            lines, at, places, quads = arguments
            loop = Loop(b, quads, [])
            made = _quad(b, dot, at, b.add(places, b.mul(loop.number, I64(16))))
            out = b.add(lines, b.mul(loop.number, I64(STRIPS * LINE)))
            for s, line in enumerate(made):
                store(b, line, b.add(out, I64(LINE * s)))
            loop.close([])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return run


def tile_of(dot: Dot, strips: int, tokens: int, gathered: bool) -> Any:
    """Make an intrinsic that adds a group's products to those so far; its arguments are int64:

    lines, at           those of `gathering`, at the tile's first strip, and 0; or, if not `gathered`, its `places` and
                        `at`, for tiles of 4 strips.
    quads               1 or more.
    x, plane, x_pitch   address of the first token's inputs at the first quad, bytes to its lower plane, bytes to
                        the next token's.
    start, start_pitch  address of its start (int32), bytes to the next token's.
    scale               address of the group's scales at the first strip.
    out, out_pitch      address of its products [strips][16] float32, bytes to the next token's.
    """

    @intrinsic
    def run(typingctx, lines, at, quads, x, plane, x_pitch, start, start_pitch, scale, out, out_pitch):
        def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            lines, at, quads, x, plane, x_pitch, start, start_pitch, scale, out, out_pitch = arguments
            starts = [b.add(start, b.mul(start_pitch, I64(t))) for t in range(tokens)]
            begins = [dot.begin(b, load(b, one, I32) if dot.offset else I32(0)) for one in starts]
            each = len(begins[0])
            loop = Loop(b, quads, [one for _ in range(strips) for sums in begins for one in sums])
            sums = [list(loop.sums[n : n + each]) for n in range(0, len(loop.sums), each)]
            if gathered:
                here = b.add(lines, b.mul(loop.number, I64(STRIPS * LINE)))
                made = [load(b, b.add(here, I64(LINE * s)), _BYTES) for s in range(strips)]
            else:
                made = _quad(b, dot, at, b.add(lines, b.mul(loop.number, I64(16))))
            weights = [dot.widened(b, parted(b, line, dot.part)) for line in made]
            for t in range(tokens):
                place = b.mul(loop.number, I64(4 if dot.split else 8))
                inputs = dot.inputs(b, b.add(b.add(x, b.mul(x_pitch, I64(t))), place), plane)
                for s in range(strips):
                    sums[s * tokens + t] = dot.dot(b, sums[s * tokens + t], weights[s], inputs)
            closed = loop.close([one for parts in sums for one in parts])
            for s in range(strips):
                factors = _scales(b, b.add(scale, I64(SCALE_BYTES * s)))
                for t in range(tokens):
                    first = (s * tokens + t) * each
                    total = b.sitofp(dot.total(b, list(closed[first : first + each])), FLOATS)
                    place = b.add(b.add(out, b.mul(out_pitch, I64(t))), I64(4 * STRIP * s))
                    store(b, fma(b, total, factors, load(b, place, FLOATS)), place)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11), codegen

    return run


@intrinsic
def fetch_scales(typingctx, scale):
    """Prefetch a group's scales of 64 rows, at this address."""

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        for place in range(0, STRIPS * SCALE_BYTES, LINE):
            prefetch(b, b.add(arguments[0], I64(place)), 2)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def not_zero(typingctx, first, second):
    """Bits (int64) of the places at which one of two arrays of 16 bytes, at these addresses, is not zero."""

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(I8, 16)
        some = b.or_(*(load(b, address, kind) for address in arguments))
        return b.zext(b.bitcast(b.icmp_unsigned("!=", some, kind([0] * 16)), I16), I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def words_not_zero(typingctx, words):
    """Bits (int64) of the places at which 16 words of 16 bits, at this address, are not zero."""

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(I16, 16)
        mask = b.icmp_unsigned("!=", load(b, arguments[0], kind), kind([0] * 16))
        return b.zext(b.bitcast(mask, I16), I64)

    return types.int64(types.int64), codegen


@intrinsic
def lowest(typingctx, bits):
    """Number of the lowest bit that is set in an int64, which is not 0."""

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return b.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.int64), codegen
