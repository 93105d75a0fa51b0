"""Tiles of integer products, one maker for each instruction set.

A tile multiplies strips of 16 rows of INT8 weights by a few tokens' 16-bit inputs. The loop is the same everywhere; a `Level`
says how a line of 64 bytes, the weights of 4 inputs for 16 rows, is multiplied and added up. All sums inside a group of 32
inputs are exact integers, so every level gives the same ones; between groups, they are float32. Twin: `int8_layout.unpacked`.

amx        tiles of 16 tokens by `int8_amx`; what is left over of a chunk, and one token at a time, as vnni.
vnni       AVX-512: one instruction multiplies 64 unsigned by signed bytes. Weights become unsigned by flipping their sign bit
           (w + 128); what that adds, 128 times the sum of the inputs, is taken off where the sum starts. Inputs are split into
           upper and lower bytes, n = 256 h + l, each with a sum of its own.
avxvnni    the same with 256 bits.
avx2       weights widened to 16 bits, `pmaddwd`.
dotprod    AArch64 `sdot`, signed by signed, inputs split as for vnni.
portable   plain multiplications of widened numbers, which LLVM turns into what there is (`smlal` on any AArch64).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rwkv_engine.errors import OptionError
from rwkv_engine.kernels.pointers import prefetch, prefetch_ahead
from rwkv_engine.kernels.vectors import FLOATS, I8, I16, I32, I64, WORDS, ZERO, Loop, fma, load, splat, store
from rwkv_engine.numbers.int8_layout import BLOCK, BLOCK_BYTES, GROUP, GROUPS, LINE, STRIP
from rwkv_engine.system import cpu

Values = list[ir.Value]


@dataclass(frozen=True, slots=True)
class Level:
    """How one instruction set multiplies.

    has      whether this machine can run it.
    shape    (strips, tokens) of the largest tile that its registers hold.
    split    inputs as a plane of upper bytes and a plane of lower ones, or as 16-bit numbers.
    offset   what was added to each weight: the sum starts at -offset * the sum of the group's inputs.
    begin    (builder, start [i32]) -> the sums of one strip and token.
    weights  (builder, address) -> a line, made ready.
    inputs   (builder, address of 4 inputs, bytes from the upper to the lower plane) -> them, made ready.
    dot      (builder, sums, line, inputs) -> sums.
    total    (builder, sums) -> the 16 rows' integers, <16 x i32>.
    """

    has: bool
    shape: tuple[int, int]
    split: bool
    offset: int
    begin: Callable[[ir.IRBuilder, ir.Value], Values]
    weights: Callable[[ir.IRBuilder, ir.Value], Values]
    inputs: Callable[[ir.IRBuilder, ir.Value, ir.Value], Values]
    dot: Callable[[ir.IRBuilder, Values, Values, Values], Values]
    total: Callable[[ir.IRBuilder, Values], ir.Value]


def tile(level: Level, strips: int, tokens: int, following: int = 0) -> Any:
    """Compile-time maker of an intrinsic: `strips` x 16 rows x `tokens`.

    Arguments, all int64: address of the first strip, bytes to the next; address of the first token's inputs, bytes from its
    upper to its lower plane, bytes to the next token; address of its starts (int32 for each group), bytes to the next token's;
    blocks of a strip; address of out [tokens][strips * 16] float32, which is written; address from which on `following` lines for each
    block are fetched into the second-level cache.
    """

    @intrinsic
    def multiply(typingctx, weights, strip_pitch, x, plane, x_pitch, start, start_pitch, blocks, out, later):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            _emit(builder, level, arguments, strips, tokens, following)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return multiply


def _emit(b: ir.IRBuilder, level: Level, arguments: Any, strips: int, tokens: int, following: int) -> None:
    """The loop over blocks; a block's lines are read in order, each once for all tokens."""
    weights, strip_pitch, x, plane, x_pitch, start, start_pitch, blocks, out, later = arguments
    pairs = [(s, t) for s in range(strips) for t in range(tokens)]
    loop = Loop(b, blocks, [ZERO] * len(pairs))
    n, grown = loop.number, dict(zip(pairs, loop.sums, strict=True))
    strip_at = [
        b.add(b.add(weights, b.mul(strip_pitch, I64(s))), b.mul(n, I64(BLOCK_BYTES))) for s in range(strips)
    ]
    bytes_each = 1 if level.split else 2
    token_at = [
        b.add(b.add(x, b.mul(x_pitch, I64(t))), b.mul(n, I64(BLOCK * bytes_each))) for t in range(tokens)
    ]
    start_at = [
        b.add(b.add(start, b.mul(start_pitch, I64(t))), b.mul(n, I64(4 * GROUPS))) for t in range(tokens)
    ]
    for number in range(following):
        prefetch(b, b.add(later, b.mul(b.add(b.mul(n, I64(following)), I64(number)), I64(LINE))), 2)
    for group in range(GROUPS):
        begins = [load(b, b.add(at, I64(4 * group)), I32) if level.offset else I32(0) for at in start_at]
        sums = {(s, t): level.begin(b, begins[t]) for s, t in pairs}
        for line in range(group * GROUP // 4, (group + 1) * GROUP // 4):
            here = [b.add(at, I64(LINE * line)) for at in strip_at]
            for place in here:
                prefetch_ahead(b, place)
            lines = [level.weights(b, place) for place in here]
            for t in range(tokens):
                inputs = level.inputs(b, b.add(token_at[t], I64(4 * line * bytes_each)), plane)
                for s in range(strips):
                    sums[s, t] = level.dot(b, sums[s, t], lines[s], inputs)
        for s in range(strips):
            scale = scales(b, b.add(strip_at[s], I64(BLOCK_BYTES - LINE)), group)
            for t in range(tokens):
                grown[s, t] = fma(b, b.sitofp(level.total(b, sums[s, t]), FLOATS), scale, grown[s, t])
    for at in strip_at:
        prefetch_ahead(b, b.add(at, I64(BLOCK_BYTES - LINE)))
    totals = loop.close([grown[pair] for pair in pairs])
    for (s, t), total in zip(pairs, totals, strict=True):
        store(b, total, b.add(out, I64((t * strips + s) * STRIP * 4)))


@intrinsic
def group_sum(typingctx, upper, lower):
    """Sum of a group's inputs, int32, from the addresses (int64) of its upper and of its lower bytes.

    Written as vectors: LLVM unrolls a loop over so few bytes into additions one after another, a cycle each.
    """

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        wide = ir.VectorType(I32, GROUP)
        high, low = (b.sext(load(b, address, ir.VectorType(I8, GROUP)), wide) for address in arguments)
        kind = ir.FunctionType(I32, [wide])
        reduce = cgutils.get_or_insert_function(b.module, kind, f"llvm.vector.reduce.add.v{GROUP}i32")
        return b.call(reduce, [b.add(b.shl(high, wide([8] * GROUP)), low)])

    return types.int32(types.int64, types.int64), codegen


def scales(b: ir.IRBuilder, address: ir.Value, group: int) -> ir.Value:
    """The 16 rows' scales of a group: BF16, the first group's in the lower halves of a line's words, the second's in the upper ones."""
    words = load(b, address, WORDS)
    bits = b.and_(words, WORDS([0xFFFF0000] * STRIP)) if group else b.shl(words, WORDS([16] * STRIP))
    return b.bitcast(bits, FLOATS)


def _joined(b: ir.IRBuilder, parts: Values) -> ir.Value:
    """Vectors one after another, as one."""
    while len(parts) > 1:
        width = 2 * parts[0].type.count
        order = ir.Constant(ir.VectorType(I32, width), list(range(width)))
        parts = [b.shuffle_vector(parts[i], parts[i + 1], order) for i in range(0, len(parts), 2)]
    return parts[0]


def _kept(b: ir.IRBuilder, values: Values) -> Values:
    """The same vectors of 128 bits, in registers now: LLVM may load nothing of what follows before it has them.

    AArch64's scheduler would else read many lines ahead and put sums on the stack; the processor reads ahead by itself.
    """
    kinds = [value.type for value in values]
    kind = ir.FunctionType(ir.LiteralStructType(kinds), kinds)
    rules = [*["=w"] * len(values), *map(str, range(len(values))), "~{memory}"]
    same = b.asm(kind, "", ",".join(rules), values, True)
    return [b.extract_value(same, i) for i in range(len(values))]


def _split_level(has: bool, shape: tuple[int, int], rows: int, name: str, offset: int) -> Level:
    """Levels with an instruction that multiplies bytes: `rows` rows x 4 inputs at once; upper and lower bytes have sums of their own.

    For x86 LLVM 20 takes words of 4 bytes, LLVM 22 bytes; but what is written for the older one it turns into its own by itself.
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
        return _kept(b, added) if rows == 4 else added

    def total(b: ir.IRBuilder, sums: Values) -> ir.Value:
        upper, lower = _joined(b, sums[:parts]), _joined(b, sums[parts:])
        return b.add(b.shl(upper, WORDS([8] * STRIP)), lower)

    return Level(has, shape, True, offset, begin, weights, inputs, dot, total)


def _pairs_added(b: ir.IRBuilder, parts: Values) -> ir.Value:
    """Neighbours added until 16 numbers are left, in order."""
    vector = _joined(b, parts)
    while vector.type.count > STRIP:
        count = vector.type.count // 2
        even, odd = (
            ir.Constant(ir.VectorType(I32, count), list(range(first, 2 * count, 2))) for first in (0, 1)
        )
        undefined = ir.Constant(vector.type, ir.Undefined)
        vector = b.add(b.shuffle_vector(vector, undefined, even), b.shuffle_vector(vector, undefined, odd))
    return vector


def _wide_level(
    has: bool, shape: tuple[int, int], rows: int, sums_each: int, multiply: Callable[..., ir.Value]
) -> Level:
    """Levels that multiply weights widened to 16 bits, `rows` rows x 4 inputs at once, into `sums_each` sums of a row."""
    parts = STRIP // rows
    four, wide = ir.VectorType(I8, 4 * rows), ir.VectorType(I16, 4 * rows)
    sums_kind = ir.VectorType(I32, sums_each * rows)

    def begin(b: ir.IRBuilder, start: ir.Value) -> Values:
        return [sums_kind([0] * sums_each * rows)] * parts

    def weights(b: ir.IRBuilder, address: ir.Value) -> Values:
        return [b.sext(load(b, b.add(address, I64(4 * rows * p)), four), wide) for p in range(parts)]

    def inputs(b: ir.IRBuilder, address: ir.Value, plane: ir.Value) -> Values:
        return [b.bitcast(splat(b, load(b, address, I64), rows), wide)]

    def dot(b: ir.IRBuilder, sums: Values, line: Values, x: Values) -> Values:
        return [b.add(total, multiply(b, part, x[0])) for total, part in zip(sums, line, strict=True)]

    return Level(has, shape, False, 0, begin, weights, inputs, dot, _pairs_added)


def _pmaddwd(b: ir.IRBuilder, w: ir.Value, x: ir.Value) -> ir.Value:
    kind = ir.FunctionType(ir.VectorType(I32, 8), [ir.VectorType(I16, 16)] * 2)
    return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx2.pmadd.wd"), [w, x])


def _plain(b: ir.IRBuilder, w: ir.Value, x: ir.Value) -> ir.Value:
    kind = ir.VectorType(I32, w.type.count)
    return b.mul(b.sext(w, kind), b.sext(x, kind))


VPDPBUSD = "llvm.x86.avx512.vpdpbusd."
_VNNI = _split_level(cpu.has_features("avx512f", "avx512vnni"), (2, 4), 16, VPDPBUSD + "512", 128)
#: best first
LEVELS = {
    "amx": replace(_VNNI, has=_VNNI.has and cpu.has_tiles()),
    "vnni": _VNNI,
    "avxvnni": _split_level(cpu.has_features("avx2", "avxvnni"), (1, 2), 8, VPDPBUSD + "256", 128),
    "avx2": _wide_level(cpu.has_features("avx2"), (1, 2), 4, 2, _pmaddwd),
    "dotprod": _split_level(cpu.has_features("dotprod"), (1, 1), 4, "llvm.aarch64.neon.sdot.v4i32.v16i8", 0),
    "portable": _wide_level(True, (1, 1), 1, 4, _plain),
}


def chosen() -> str:
    """The level to compile for: the best that this machine has, or the one that RWKV_ENGINE_LEVEL names. Raises OptionError."""
    here = [name for name, level in LEVELS.items() if level.has]
    wanted = cpu.wanted_level() or here[0]
    if wanted not in here:
        raise OptionError(f"RWKV_ENGINE_LEVEL: got {wanted!r}, this machine has {', '.join(here)}")
    return wanted
