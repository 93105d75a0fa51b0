"""Tiles over weights of 4-bit and 5-bit codes: a byte shuffle turns codes into the table's values, which
`int8_levels` multiplies.

Where weights are unsigned (see `int8_levels`), so are the table's values: nothing has to be flipped.
"""

from collections.abc import Sequence
from functools import partial

from llvmlite import ir
from numba.core import cgutils

from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.int8_tiles import Dot, Layout, Tile, Values, vector_tile
from rwkv_engine.kernels.pointers import for_arm
from rwkv_engine.kernels.vectors import FLOATS, I8, I64, LANES, load, parted
from rwkv_engine.numbers.code_layout import CODE_LINES, GROUP, GROUPS, LINE, SERVED, STRIP, TAIL, Codes

#: bytes of a vector -> the instruction of x86 that looks up bytes in a table of 16
_X86 = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b", 16: "llvm.x86.ssse3.pshuf.b.128"}
_BYTES = ir.VectorType(I8, LANES)


def _quad(table: Codes, b: ir.IRBuilder, dot: Dot, block: ir.Value, quad: int) -> Values:
    """Codes in the low or in the high halves of a line's bytes, and their fifth bits."""
    width = max(dot.part, 16)
    kind = ir.VectorType(I8, width)
    line, half = divmod(quad, 2)
    fifths_line, bit = divmod(quad, SERVED)
    weights: Values = []
    for place in range(0, LINE, width):
        codes = load(b, b.add(block, I64(line * LINE + place)), kind)
        codes = b.lshr(codes, kind([4] * width)) if half else b.and_(codes, kind([15] * width))
        if table.fifths:
            fifths = load(b, b.add(block, I64((CODE_LINES + fifths_line) * LINE + place)), kind)
            values = _values_of_5(b, dot, table, codes, fifths, bit)
        else:
            values = _values(b, dot, table.values, codes)
        weights += parted(b, values, dot.part)
    return dot.widened(b, weights)


def _values(b: ir.IRBuilder, dot: Dot, values: Sequence[int], codes: ir.Value) -> ir.Value:
    """What codes from 0 to 15 stand for."""
    table, width = _table(dot, values), codes.type.count
    if for_arm(b):
        return _called(b, "llvm.aarch64.neon.tbl1.v16i8", [_BYTES(table), codes])
    if dot.part < 16:  # any processor
        return _selected(b, codes, table)
    return _called(b, _X86[width], [codes.type(table * (width // 16)), codes])


def _values_of_5(
    b: ir.IRBuilder, dot: Dot, table: Codes, codes: ir.Value, fifths: ir.Value, bit: int
) -> ir.Value:
    """What codes from 0 to 31 stand for, whose fifth bits are bits `bit` of `fifths`."""
    kind = codes.type

    def every(number: int) -> ir.Constant:
        return kind([number] * kind.count)

    if for_arm(b):
        moved = b.shl(fifths, every(4 - bit)) if bit < 4 else b.lshr(fifths, every(bit - 4))
        whole = b.or_(codes, b.and_(moved, every(16)))
        halves = [_BYTES(half) for half in _halves(_table(dot, table.values))]
        return _called(b, "llvm.aarch64.neon.tbl2.v16i8", [*halves, whole])
    one = b.icmp_signed("!=", b.and_(fifths, every(1 << bit)), every(0))
    low, high = (_values(b, dot, half, codes) for half in _halves(table.values))
    return b.select(one, high, low)


def _halves(table: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    return table[:16], table[16:]


def _table(dot: Dot, values: Sequence[int]) -> list[int]:
    """What `dot` multiplies for values, as LLVM writes bytes."""
    return [(value + dot.offset + 128) % 256 - 128 for value in values]


def _called(b: ir.IRBuilder, name: str, arguments: Values) -> ir.Value:
    kind = ir.FunctionType(arguments[-1].type, [one.type for one in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), arguments)


def _selected(b: ir.IRBuilder, codes: ir.Value, table: Sequence[int]) -> ir.Value:
    """Bit by bit, from the lowest on, one half of what is left of the table."""
    kind = codes.type

    def every(number: int) -> ir.Constant:
        return kind([number] * kind.count)

    left: Values = [every(value) for value in table]
    for bit in range(4):
        one = b.icmp_signed("!=", b.and_(codes, every(1 << bit)), every(0))
        left = [b.select(one, odd, even) for even, odd in zip(left[::2], left[1::2], strict=True)]
    return left[0]


def _scales(b: ir.IRBuilder, address: ir.Value, group: int) -> ir.Value:
    """The 16 rows' scales of a group: bytes one after another."""
    return b.sitofp(load(b, b.add(address, I64(group * STRIP)), _BYTES), FLOATS)


def layout_of(table: Codes) -> Layout:
    """How weights of a table's codes lie in a strip.

    All lines of long strips are prefetched far ahead. On a Zen 4, one token of 4,096 x 2,048 and of 1,024 x 4,096 is then
    multiplied from memory 1.1 and 1.2 times as fast in int4, 1.4 times in int5 (two lanes; with one 1.1, 1.7 and 1.8, 2.0);
    of 4,096 x 1,024 it would be 0.97 times in int4.
    """
    return Layout(
        GROUP,
        GROUPS,
        2,
        partial(_quad, table),
        _scales,
        table.block_bytes // LINE,
        table.fifths,
        TAIL,
        lambda b, address: load(b, address, FLOATS),
    )


def tiles_of(layout: Layout) -> dict[str, tuple[Tile, ...]]:
    """As `Level.tiles`, of weights that lie like this."""

    def tiles(level: str, *sizes: tuple[int, int]) -> tuple[Tile, ...]:
        """Tiles of some sizes (strips, tokens), and one of 1 x 1."""
        return tuple(vector_tile(LEVELS[level].dot, *size, layout) for size in (*sizes, (1, 1)))

    vnni = tiles("vnni", (1, 4), (1, 2))
    return {
        "amx": vnni,
        "vnni": vnni,
        "avxvnni": tiles("avxvnni", (1, 2)),
        "avx2": tiles("avx2", (1, 2)),
        "dotprod": tiles("dotprod"),
        "portable": tiles("portable"),
    }
