"""Tiles of integer products by AMX: 16 tokens at once, for reading prompts.

What is left over goes to `int8_levels`' tiles.

A group of 32 inputs is what one instruction multiplies: A is 16 tokens x 32 bytes of their upper or lower
plane, B is 8 lines of packed weights as they lie (4 inputs for 16 rows each), C is 16 tokens x 16 rows of
integers. Both factors are signed, so nothing is added to the weights and taken off again. Integers and the
order of float32 sums are those of every other level.

Bound: a group of a strip is 16 x 16 x 32 = 8192 products with inputs of 16 bits. Its two multiplications keep
the tile unit busy for 16 cycles each (for 8 lines of weights as for the 16 that it could take: a scale for
every 32 inputs costs half of it). Its 32 rows of results are stored at one in a cycle, and become sums in 64
vector instructions at two in a cycle: 32 cycles for each of the three, side by side. Loads are the narrowest:
32 rows of A, 8 of B, 32 of results and 9 prefetches, 40 cycles at two in a cycle. So at most 205 products in
a cycle; AVX-512 VNNI does at most 64. Therefore one strip at a time, whose 16 x 16 float32 sums stay in
registers: two strips would share A, but keep sums in memory, which costs in stores what it saves in loads.
These are counts of instructions: the tile ran in an emulator, its speed has not been measured.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from rwkv_engine.kernels.int8_tiles import Tile, scales
from rwkv_engine.kernels.pointers import prefetch_ahead
from rwkv_engine.kernels.vectors import FLOATS, I8, I64, WORDS, ZERO, Loop, fma, load, store
from rwkv_engine.numbers.int8_layout import BLOCK, BLOCK_BYTES, GROUP, GROUPS, LINE, STRIP

#: tokens of a tile
TOKENS = 16
#: lines of weights, of 4 inputs each, that a group has; bytes of a tile of results
_LINES, _RESULT = GROUP // 4, TOKENS * LINE
#: registers of a group: upper and lower bytes of its inputs, its weights, results of either plane; groups
#: after each other use different ones of those that they can have, so that the next need not wait
_INPUTS, _WEIGHTS, _RESULTS = (0, 1), (2, 3), ((4, 5), (6, 7))


def _shapes() -> list[int]:
    """What the tile configuration holds (64 bytes): palette 1, then for each register bytes of a row (16
    bits) and rows.
    """
    row_bytes = [GROUP] * 2 + [LINE] * 6
    rows = [TOKENS] * 2 + [_LINES] * 2 + [TOKENS] * 4
    shapes = [1] + [0] * 63
    shapes[16:32:2], shapes[48:56] = row_bytes, rows
    return shapes


def _call(b: ir.IRBuilder, name: str, *arguments: ir.Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.x86." + name), arguments)


def _move(b: ir.IRBuilder, name: str, register: int, address: ir.Value, pitch: ir.Value) -> None:
    """A register's rows, `pitch` bytes apart, from or to memory."""
    _call(b, name, I8(register), b.inttoptr(address, I8.as_pointer()), pitch)


def emit_configure(b: ir.IRBuilder) -> None:
    """Give this thread's tile registers their shapes."""
    shapes = cgutils.global_constant(b, "amx_shapes", ir.Constant(ir.ArrayType(I8, 64), _shapes()))
    _call(b, "ldtilecfg", b.bitcast(shapes, I8.as_pointer()))


def emit_release(b: ir.IRBuilder) -> None:
    """Leave no tile state in this thread: it would be saved with every switch to another one."""
    _call(b, "tilerelease")


def emit_multiply(b: ir.IRBuilder, arguments: Any) -> None:
    """The loop over blocks.

    The tile unit multiplies the next block while the vector units add up this one's results.

    Arguments as `int8_tiles.multiply` has them: signed weights need no starts.
    """
    weights, _, x, plane, x_pitch, _, _, blocks, out, _ = arguments
    with b.goto_entry_block():
        room = b.alloca(ir.ArrayType(I8, GROUPS * 2 * _RESULT))
    room.align = LINE
    room = b.ptrtoint(room, I64)
    _multiply_block(b, weights, x, plane, x_pitch)
    _store_results(b, room)
    loop = Loop(b, blocks, [ZERO] * TOKENS)
    strip = b.add(weights, b.mul(loop.number, I64(BLOCK_BYTES)))
    for line in range(BLOCK_BYTES // LINE):
        prefetch_ahead(b, b.add(strip, I64(LINE * line)))
    following = b.add(loop.number, I64(1))
    with b.if_then(b.icmp_signed("<", following, blocks), likely=True):
        _multiply_block(
            b, b.add(strip, I64(BLOCK_BYTES)), b.add(x, b.mul(following, I64(BLOCK))), plane, x_pitch
        )
    grown = _grown(b, loop.sums, room, b.add(strip, I64(BLOCK_BYTES - LINE)))
    _store_results(b, room)
    for t, total in enumerate(loop.close(grown)):
        store(b, total, b.add(out, I64(t * STRIP * 4)))


def _multiply_block(
    b: ir.IRBuilder, strip: ir.Value, inputs: ir.Value, plane: ir.Value, pitch: ir.Value
) -> None:
    """Both groups of a block: lines of weights at `strip`, inputs of the first token at `inputs`; integers to
    the registers of results.
    """
    for group in range(GROUPS):
        here = b.add(inputs, I64(group * GROUP))
        _move(b, "tileloadd64", _WEIGHTS[group], b.add(strip, I64(group * _LINES * LINE)), I64(LINE))
        for address, register, result in zip(
            (here, b.add(here, plane)), _INPUTS, _RESULTS[group], strict=True
        ):
            _move(b, "tileloadd64", register, address, pitch)
            _call(b, "tilezero", I8(result))
            _call(b, "tdpbssd", I8(result), I8(register), I8(_WEIGHTS[group]))


def _store_results(b: ir.IRBuilder, room: ir.Value) -> None:
    """room [GROUPS][upper, lower][TOKENS][16] int32 <- the registers of results."""
    for number, result in enumerate(result for pair in _RESULTS for result in pair):
        _move(b, "tilestored64", result, b.add(room, I64(number * _RESULT)), I64(LINE))


def _grown(b: ir.IRBuilder, sums: list[ir.Value], room: ir.Value, scale_line: ir.Value) -> list[ir.Value]:
    """Each token's sums + first group's integers * scales, + second group's."""
    grown, scale = list(sums), [scales(b, scale_line, group) for group in range(GROUPS)]
    for t in range(TOKENS):
        for group in range(GROUPS):
            at = b.add(room, I64(group * 2 * _RESULT + t * LINE))
            upper, lower = load(b, at, WORDS, LINE), load(b, b.add(at, I64(_RESULT)), WORDS, LINE)
            total = b.add(b.shl(upper, WORDS([8] * STRIP)), lower)
            grown[t] = fma(b, b.sitofp(total, FLOATS), scale[group], grown[t])
        b.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], True)
    return grown


#: one strip at a time; see above
TILE = Tile(1, TOKENS, emit_multiply, emit_configure, emit_release)
