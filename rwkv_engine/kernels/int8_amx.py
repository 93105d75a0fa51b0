"""Tiles of integer products with AMX: 16 tokens at once, for reading prompts; `int8_levels` does the rest.

One instruction multiplies a group of 32 inputs: A is 16 tokens x 32 bytes of their upper or lower plane, B is
8 lines of packed weights as stored (4 inputs for 16 rows each), C is 16 tokens x 16 rows of integers. Both
factors are signed, so the weights need no offset. Integers and the order of float32 sums are the same as for
every other level.

Bound: a group of a strip is 16 x 16 x 32 = 8192 products with 16-bit inputs. Its two multiplications keep the
tile unit busy for 16 cycles each (8 lines of weights take as long as the maximum of 16: a scale for every 32
inputs costs half the speed). Its 32 rows of results are stored at one per cycle, and summed by 64 vector
instructions at two per cycle: 32 cycles for each of the three, in parallel. Loads are the bottleneck: 32 rows
of A, 8 of B, 32 of results and 9 prefetches, 40 cycles at two per cycle. So at most 205 products per cycle;
AVX-512 VNNI does at most 64. Therefore it does one strip at a time, whose 16 x 16 float32 sums stay in
registers: two strips would share A, but keep sums in memory, and the stores would cost what the loads save.
These are counts of instructions: the tile ran in an emulator; its speed was not measured.
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
#: lines of weights (4 inputs each) in a group; bytes of a tile of results
_LINES, _RESULT = GROUP // 4, TOKENS * LINE
#: registers of a group: upper and lower bytes of its inputs; its weights and results of both planes, which
#: differ between successive groups, so that the next one need not wait
_INPUTS, _WEIGHTS, _RESULTS = (0, 1), (2, 3), ((4, 5), (6, 7))


def _shapes() -> list[int]:
    """The tile configuration (64 bytes): palette 1, then bytes per row (16 bits) and rows per register."""
    row_bytes = [GROUP] * 2 + [LINE] * 6
    rows = [TOKENS] * 2 + [_LINES] * 2 + [TOKENS] * 4
    shapes = [1] + [0] * 63
    shapes[16:32:2], shapes[48:56] = row_bytes, rows
    return shapes


def _call(b: ir.IRBuilder, name: str, *arguments: ir.Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.x86." + name), arguments)


def _move(b: ir.IRBuilder, name: str, register: int, address: ir.Value, pitch: ir.Value) -> None:
    """Load or store a register's rows, which are `pitch` bytes apart in memory."""
    _call(b, name, I8(register), b.inttoptr(address, I8.as_pointer()), pitch)


def emit_configure(b: ir.IRBuilder) -> None:
    """Configure the shapes of this thread's tile registers."""
    shapes = cgutils.global_constant(b, "amx_shapes", ir.Constant(ir.ArrayType(I8, 64), _shapes()))
    _call(b, "ldtilecfg", b.bitcast(shapes, I8.as_pointer()))


def emit_release(b: ir.IRBuilder) -> None:
    """Release the tile state, which would be saved at every thread switch."""
    _call(b, "tilerelease")


def emit_multiply(b: ir.IRBuilder, arguments: Any) -> None:
    """The loop over blocks; arguments as in `int8_tiles.multiply`, without starts, as weights are signed.

    The tile unit multiplies the next block while the vector units add up the results of this one.
    """
    weights, _, x, plane, x_pitch, _, _, blocks, out, _, _ = arguments
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
    """Multiply both groups of a block: weights at `strip`, the first token's inputs at `inputs`.

    The integers stay in the result registers.
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
    """room [GROUPS][upper, lower][TOKENS][16] int32 <- the result registers."""
    for number, result in enumerate(result for pair in _RESULTS for result in pair):
        _move(b, "tilestored64", result, b.add(room, I64(number * _RESULT)), I64(LINE))


def _grown(b: ir.IRBuilder, sums: list[ir.Value], room: ir.Value, scale_line: ir.Value) -> list[ir.Value]:
    """Each token's sums + first group's integers * scales + second group's."""
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
