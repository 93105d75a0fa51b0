"""Tiles over 4-bit weights: a byte shuffle turns codes into the table's values, which `int8_levels`
multiplies.

Where weights are unsigned (see `int8_levels`), so are the table's values: nothing has to be flipped.
"""

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.int8_tiles import Dot, Layout, Tile, Values, vector_tile
from rwkv_engine.kernels.vectors import FLOATS, I8, I32, I64, LANES, load
from rwkv_engine.numbers.int4_layout import GROUP, GROUPS, LINE, STRIP, TAIL, VALUES

#: bytes of a vector -> the instruction of x86 that looks up bytes in a table of 16
_X86 = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b", 16: "llvm.x86.ssse3.pshuf.b.128"}
_BYTES = ir.VectorType(I8, LANES)


def _weights(b: ir.IRBuilder, dot: Dot, address: ir.Value) -> list[Values]:
    """Both quads of a line of codes: what is in the low and in the high halves of its bytes."""
    width = max(dot.part, 16)
    low: Values = []
    high: Values = []
    kind = ir.VectorType(I8, width)
    for place in range(0, LINE, width):
        codes = load(b, b.add(address, I64(place)), kind)
        four = ir.Constant(kind, [4] * width)
        low += _cut(b, _values(b, dot, b.and_(codes, kind([15] * width))), dot.part)
        high += _cut(b, _values(b, dot, b.lshr(codes, four)), dot.part)
    return [dot.widened(b, low), dot.widened(b, high)]


def _values(b: ir.IRBuilder, dot: Dot, codes: ir.Value) -> ir.Value:
    """What codes from 0 to 15 stand for."""
    table, width = [value + dot.offset for value in VALUES], codes.type.count
    if b.module.triple.startswith(("aarch64", "arm64")):
        return _called(b, "llvm.aarch64.neon.tbl1.v16i8", [_BYTES(_signed(table)), codes])
    if dot.part < 16:  # any processor
        return _selected(b, codes, table)
    return _called(b, _X86[width], [codes.type(_signed(table) * (width // 16)), codes])


def _signed(table: Sequence[int]) -> list[int]:
    """The same bytes, as LLVM writes them."""
    return [value - 256 if value > 127 else value for value in table]


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


def _cut(b: ir.IRBuilder, vector: ir.Value, part: int) -> Values:
    """A vector in parts of so many bytes."""
    if vector.type.count == part:
        return [vector]
    undefined = ir.Constant(vector.type, ir.Undefined)
    orders = [
        ir.Constant(ir.VectorType(I32, part), list(range(first, first + part)))
        for first in range(0, vector.type.count, part)
    ]
    return [b.shuffle_vector(vector, undefined, order) for order in orders]


def _scales(b: ir.IRBuilder, address: ir.Value, group: int) -> ir.Value:
    """The 16 rows' scales of a group: bytes one after another."""
    return b.sitofp(load(b, b.add(address, I64(group * STRIP)), _BYTES), FLOATS)


INT4 = Layout(GROUP, GROUPS, 2, _weights, _scales, TAIL, lambda b, address: load(b, address, FLOATS))


def _tiles(level: str, *sizes: tuple[int, int]) -> tuple[Tile, ...]:
    """Tiles of some sizes (strips, tokens), and one of 1 x 1."""
    return tuple(vector_tile(LEVELS[level].dot, *size, layout=INT4) for size in (*sizes, (1, 1)))


_VNNI = _tiles("vnni", (2, 2))
#: as `Level.tiles`, of 4-bit weights
TILES = {
    "amx": _VNNI,
    "vnni": _VNNI,
    "avxvnni": _tiles("avxvnni", (1, 2)),
    "avx2": _tiles("avx2", (1, 2)),
    "dotprod": _tiles("dotprod"),
    "portable": _tiles("portable"),
}
