"""INT8 on each instruction set: how it multiplies, and the tile sizes that its registers allow.

amx        tiles of 16 tokens by `int8_amx`; the rest of a chunk, and single tokens, as vnni.
vnni       AVX-512: one instruction multiplies 64 unsigned by signed bytes. Flipping the sign bit makes
           weights unsigned (w + 128); the surplus, 128 times the sum of the inputs, is subtracted at the
           start of the sum. Inputs are split into upper and lower bytes, n = 256 h + l, with separate sums.
avxvnni    the same with 256 bits.
avx2       weights widened to 16 bits, `pmaddwd`.
dotprod    AArch64 `sdot`, signed by signed, inputs split as for vnni.
portable   plain multiplications of widened numbers, which LLVM compiles to what the target has (`smlal` on
           any AArch64).
"""

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir
from numba.core import cgutils

from rwkv_engine.errors import OptionError
from rwkv_engine.kernels import int8_amx
from rwkv_engine.kernels.int8_tiles import Dot, Tile, Values, vector_tile
from rwkv_engine.kernels.pointers import for_arm
from rwkv_engine.kernels.vectors import I8, I16, I32, I64, WORDS, load, splat
from rwkv_engine.numbers.int8_layout import STRIP
from rwkv_engine.system import cpu


def _joined(b: ir.IRBuilder, parts: Values) -> ir.Value:
    """Concatenate vectors."""
    while len(parts) > 1:
        width = 2 * parts[0].type.count
        order = ir.Constant(ir.VectorType(I32, width), list(range(width)))
        parts = [b.shuffle_vector(parts[i], parts[i + 1], order) for i in range(0, len(parts), 2)]
    return parts[0]


def _kept(b: ir.IRBuilder, values: Values) -> Values:
    """The same 128-bit vectors, forced into registers before LLVM may load anything that follows.

    Otherwise LLVM's scheduler would load many lines early and spill sums to the stack, where there are not
    AVX-512's registers; the processor itself reads ahead anyway.
    """
    kinds = [value.type for value in values]
    kind = ir.FunctionType(ir.LiteralStructType(kinds), kinds)
    register = "=w" if for_arm(b) else "=x"
    rules = [*[register] * len(values), *map(str, range(len(values))), "~{memory}"]
    same = b.asm(kind, "", ",".join(rules), values, True)
    return [b.extract_value(same, i) for i in range(len(values))]


def _split_dot(rows: int, name: str, offset: int) -> Dot:
    """Levels with an instruction that multiplies bytes: `rows` rows x 4 inputs, separate sums per plane.

    On x86, LLVM 20 takes words of 4 bytes and LLVM 22 bytes, but it converts the older form itself.
    """
    parts = STRIP // rows
    words, four = ir.VectorType(I32, rows), ir.VectorType(I8, 4 * rows)

    def begin(b: ir.IRBuilder, start: ir.Value) -> Values:
        return [words([0] * rows)] * parts + [splat(b, start, rows) if offset else words([0] * rows)] * parts

    def weights(b: ir.IRBuilder, address: ir.Value) -> Values:
        lines = [load(b, b.add(address, I64(4 * rows * p)), four) for p in range(parts)]
        return [b.xor(line, four([-128] * (4 * rows))) for line in lines] if offset else lines

    def inputs(b: ir.IRBuilder, address: ir.Value, plane: ir.Value) -> Values:
        return [b.bitcast(splat(b, load(b, at, I32), rows), four) for at in (address, b.add(address, plane))]

    def dot(b: ir.IRBuilder, sums: Values, line: Values, planes: Values) -> Values:
        taken = words if offset else four
        instruction = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(words, [words, taken, taken]), name
        )
        line, planes = ([b.bitcast(vector, taken) for vector in vectors] for vectors in (line, planes))
        added = [
            b.call(instruction, [total, line[i % parts], planes[i // parts]]) for i, total in enumerate(sums)
        ]
        return _kept(b, added) if rows < 16 else added

    def total(b: ir.IRBuilder, sums: Values) -> ir.Value:
        upper, lower = _joined(b, sums[:parts]), _joined(b, sums[parts:])
        return b.add(b.shl(upper, WORDS([8] * STRIP)), lower)

    return Dot(True, offset, begin, weights, inputs, dot, total, 4 * rows, lambda b, parts: parts)


def _pairs_added(b: ir.IRBuilder, parts: Values) -> ir.Value:
    """Add neighbours until 16 numbers are left, in order."""
    vector = _joined(b, parts)
    while vector.type.count > STRIP:
        count = vector.type.count // 2
        even, odd = (
            ir.Constant(ir.VectorType(I32, count), list(range(first, 2 * count, 2))) for first in (0, 1)
        )
        undefined = ir.Constant(vector.type, ir.Undefined)
        vector = b.add(b.shuffle_vector(vector, undefined, even), b.shuffle_vector(vector, undefined, odd))
    return vector


def _wide_dot(rows: int, sums_each: int, multiply: Callable[..., ir.Value]) -> Dot:
    """Levels that multiply weights widened to 16 bits: `rows` rows x 4 inputs, `sums_each` sums per row."""
    parts = STRIP // rows
    four, wide = ir.VectorType(I8, 4 * rows), ir.VectorType(I16, 4 * rows)
    sums_kind = ir.VectorType(I32, sums_each * rows)

    def begin(b: ir.IRBuilder, start: ir.Value) -> Values:
        return [sums_kind([0] * sums_each * rows)] * parts

    def weights(b: ir.IRBuilder, address: ir.Value) -> Values:
        return widened(b, [load(b, b.add(address, I64(4 * rows * p)), four) for p in range(parts)])

    def widened(b: ir.IRBuilder, line: Values) -> Values:
        return [b.sext(part, wide) for part in line]

    def inputs(b: ir.IRBuilder, address: ir.Value, plane: ir.Value) -> Values:
        return [b.bitcast(splat(b, load(b, address, I64), rows), wide)]

    def dot(b: ir.IRBuilder, sums: Values, line: Values, x: Values) -> Values:
        added = [b.add(total, multiply(b, part, x[0])) for total, part in zip(sums, line, strict=True)]
        return _kept(b, added) if rows > 1 else added

    return Dot(False, 0, begin, weights, inputs, dot, _pairs_added, 4 * rows, widened)


def _pmaddwd(b: ir.IRBuilder, w: ir.Value, x: ir.Value) -> ir.Value:
    kind = ir.FunctionType(ir.VectorType(I32, 8), [ir.VectorType(I16, 16)] * 2)
    return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx2.pmadd.wd"), [w, x])


def _plain(b: ir.IRBuilder, w: ir.Value, x: ir.Value) -> ir.Value:
    kind = ir.VectorType(I32, w.type.count)
    return b.mul(b.sext(w, kind), b.sext(x, kind))


@dataclass(frozen=True, slots=True)
class Level:
    """One instruction set.

    has    whether this machine supports it.
    dot    how it multiplies.
    tiles  largest first; the last is 1 strip x 1 token. A product is cut into the first ones that fit, the
           rest into the next ones.
    """

    has: bool
    dot: Dot
    tiles: tuple[Tile, ...]


def _level(has: bool, dot: Dot, *sizes: tuple[int, int]) -> Level:
    """A level with vector tiles of these sizes (strips, tokens) and 1 x 1."""
    return Level(has, dot, tuple(vector_tile(dot, *size) for size in (*sizes, (1, 1))))


VPDPBUSD = "llvm.x86.avx512.vpdpbusd."
#: with what they prefetch, products of 4 tokens take 1.0 to 1.1 times those of one on a Zen 4 with two lanes (0.4B, 28
#: to 42 GB/s; 1.9 without it), of 8 tokens 1.3 to 1.8: there all 32 products a cycle of both cores are used. 1 x 4
#: is as fast there, but needs an input for every product, as 2 x 4 does for every second one
_VNNI = _level(
    cpu.has_features("avx512f", "avx512vnni"), _split_dot(16, VPDPBUSD + "512", 128), (2, 4), (1, 2)
)
#: best first
LEVELS = {
    "amx": Level(_VNNI.has and cpu.has_tiles(), _VNNI.dot, (int8_amx.TILE, *_VNNI.tiles)),
    "vnni": _VNNI,
    "avxvnni": _level(cpu.has_features("avx2", "avxvnni"), _split_dot(8, VPDPBUSD + "256", 128), (1, 2)),
    "avx2": _level(cpu.has_features("avx2"), _wide_dot(4, 2, _pmaddwd), (1, 2)),
    "dotprod": _level(cpu.has_features("dotprod"), _split_dot(4, "llvm.aarch64.neon.sdot.v4i32.v16i8", 0)),
    "portable": _level(True, _wide_dot(1, 4, _plain)),
}


def chosen() -> str:
    """The level to compile for: the best one here, or the one in RWKV_ENGINE_LEVEL. Raises OptionError."""
    here = [name for name, level in LEVELS.items() if level.has]
    wanted = cpu.wanted_level() or here[0]
    if wanted not in here:
        raise OptionError(f"RWKV_ENGINE_LEVEL: got {wanted!r}, this machine has {', '.join(here)}")
    return wanted
