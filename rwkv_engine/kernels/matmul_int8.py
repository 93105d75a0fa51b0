"""Matrix products over INT8 weights: integers inside a group of inputs, float32 between groups.

Inputs are quantized on the fly, each group of GROUP numbers by its own scale, because the squared ReLU makes a few of them
large. Weights lie in strips of 16 rows, group by group: GROUP / 4 lines of 64 bytes, each with the weights of 4 inputs for 16
rows, which is what one VNNI instruction multiplies; behind them one line with the 16 rows' scales for this group. So a strip
is read as one stream.

VNNI wants one operand unsigned; the weights become so by flipping their sign bit (w + 128), and what that adds, 128 times the
sum of a group's inputs, is taken off where the sum starts. So all sums inside a group are exact integers, the same on every
level. Twin: formats.int8.unpack, and `quantize_inputs` by hand.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable

from rwkv_engine import cpu
from rwkv_engine.errors import OptionError
from rwkv_engine.kernels._jit import FASTMATH, kernel
from rwkv_engine.kernels.lanes import take
from rwkv_engine.kernels.matmul import ADD, finished, matmul
from rwkv_engine.kernels.pointers import address_of, bytes_at, floats, integers, matrix, prefetch_line

#: rows of a strip, inputs of a group, tokens of a tile
STRIP, GROUP, TOKENS = 16, 64, 8
#: bytes of a group of a strip: integers and scales
GROUP_BYTES = STRIP * GROUP + STRIP * 4
#: bytes of weights behind one ticket, as in matmul_float
TICKET_BYTES = 131072
AHEAD = 4096
I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
WORDS, FLOATS = ir.VectorType(I32, STRIP), ir.VectorType(F32, STRIP)
BYTES = ir.VectorType(ir.IntType(8), 4 * STRIP)


class Int8Rows(NamedTuple):
    """INT8 matrices of one kind, a layer each.

    at     [L] addresses of strips [ceil(rows / 16)][groups], each group [GROUP / 4][16][4] int8 and then [16] float32 scales;
           rows and cols are padded with zeros. weight = integer * scale of its row and group.
    rows, cols  as the matrices are seen from outside.
    """

    at: np.ndarray
    rows: int
    cols: int


@kernel
def quantize_inputs(q, start, scale, x):
    """q [cols padded] int8, scale [groups] <- x [cols]; start [groups] int32 <- -128 * sum of a group's integers.

    Integers are rounded to nearest, at most 127 in size; a group of zeros has scale 0.
    """
    cols = x.shape[0]
    for g in range(scale.shape[0]):
        lo, hi = g * GROUP, min((g + 1) * GROUP, cols)
        largest = np.float32(0)
        for i in range(lo, hi):
            largest = max(largest, abs(x[i]))
        scale[g] = largest / np.float32(127)
        inverse = np.float32(127) / largest if largest > 0 else np.float32(0)
        total = np.int32(0)
        for i in range(lo, hi):
            n = np.int32(np.rint(x[i] * inverse))
            q[i] = n
            total += n
        for i in range(hi, (g + 1) * GROUP):
            q[i] = 0
        start[g] = np.int32(-128) * total


def _vnni_tile(tokens: int) -> Any:
    """Compile-time maker of an intrinsic: 16 rows x `tokens`, (weights, q, start, scale, groups, q pitch, group pitch, out), addresses.

    out [tokens][16] float32. The pitches are bytes from one token's integers and groups to the next token's.
    """

    @intrinsic
    def tile(typingctx, weights, q, start, scale, groups, q_pitch, group_pitch, out):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            _emit_tile(builder, arguments, tokens)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return tile


def _emit_tile(b: ir.IRBuilder, arguments: Any, tokens: int) -> None:
    """The loop over groups of `_vnni_tile`; a group's 16 lines of weights are read in order, each once for all tokens."""
    weights, q, start, scale, groups, q_pitch, group_pitch, out = arguments
    kind = ir.FunctionType(WORDS, [WORDS, BYTES, BYTES])
    dot = cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx512.vpdpbusd.512")
    fma = cgutils.get_or_insert_function(b.module, ir.FunctionType(FLOATS, [FLOATS] * 3), "llvm.fmuladd.v16f32")
    flip = ir.Constant(BYTES, [-128] * (4 * STRIP))
    before, loop, after = b.block, b.append_basic_block("group"), b.append_basic_block("out")
    b.branch(loop)
    b.position_at_end(loop)
    g = b.phi(I64)
    totals = [b.phi(FLOATS) for _ in range(tokens)]
    at = b.add(weights, b.mul(g, I64(GROUP_BYTES)))
    here = b.mul(g, I64(4))
    sums = [_splat(b, _number(b, b.add(start, b.add(here, b.mul(group_pitch, I64(t)))), I32), WORDS) for t in range(tokens)]
    inputs = [b.add(q, b.add(b.mul(g, I64(GROUP)), b.mul(q_pitch, I64(t)))) for t in range(tokens)]
    for line in range(GROUP // 4):
        place = b.add(at, I64(64 * line))
        prefetch_line(b, b.add(place, I64(AHEAD)))
        w = b.load(b.inttoptr(place, BYTES.as_pointer()))
        w.align = 1
        unsigned = b.xor(w, flip)
        for t in range(tokens):
            four = _splat(b, _number(b, b.add(inputs[t], I64(4 * line)), I32), WORDS)
            sums[t] = b.call(dot, [sums[t], unsigned, b.bitcast(four, BYTES)])
    rows_scale = b.load(b.inttoptr(b.add(at, I64(STRIP * GROUP)), FLOATS.as_pointer()))
    rows_scale.align = 4
    prefetch_line(b, b.add(at, I64(STRIP * GROUP + AHEAD)))
    grown = []
    for t in range(tokens):
        factor = _splat(b, _number(b, b.add(scale, b.add(here, b.mul(group_pitch, I64(t)))), F32), FLOATS)
        grown.append(b.call(fma, [b.sitofp(sums[t], FLOATS), b.fmul(factor, rows_scale), totals[t]]))
    following = b.add(g, I64(1))
    g.add_incoming(I64(0), before)
    g.add_incoming(following, loop)
    for phi, value in zip(totals, grown, strict=True):
        phi.add_incoming(FLOATS([0.0] * STRIP), before)
        phi.add_incoming(value, loop)
    b.cbranch(b.icmp_signed("<", following, groups), loop, after)
    b.position_at_end(after)
    for t in range(tokens):
        store = b.store(grown[t], b.inttoptr(b.add(out, I64(t * STRIP * 4)), FLOATS.as_pointer()))
        store.align = 4


def _number(b: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    value = b.load(b.inttoptr(address, kind.as_pointer()))
    value.align = 1 if kind is I32 else 4
    return value


def _splat(b: ir.IRBuilder, number: ir.Value, vector: ir.VectorType) -> ir.Value:
    one = b.insert_element(ir.Constant(vector, ir.Undefined), number, I32(0))
    return b.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(WORDS, [0] * STRIP))


def _portable_tile(tokens: int) -> Any:
    """The same in plain code, for processors without AVX-512 VNNI, and the twin that VNNI is held against."""

    @register_jitable(fastmath=FASTMATH)
    def tile(weights, q, start, scale, groups, q_pitch, group_pitch, out):
        for t in range(tokens):
            y = floats(out + t * STRIP * 4, STRIP)
            x = bytes_at(q + t * q_pitch, groups * GROUP)
            s = floats(scale + t * group_pitch, groups)
            for r in range(STRIP):
                y[r] = np.float32(0)
            for g in range(groups):
                w = bytes_at(weights + g * GROUP_BYTES, GROUP * STRIP)
                rows_scale = floats(weights + g * GROUP_BYTES + GROUP * STRIP, STRIP)
                for r in range(STRIP):
                    total = np.int32(0)
                    for line in range(GROUP // 4):
                        for i in range(4):
                            total += np.int32(w[line * 64 + r * 4 + i]) * np.int32(x[g * GROUP + line * 4 + i])
                    y[r] += np.float32(total) * (s[g] * rows_scale[r])

    return tile


#: level -> (maker of its tiles, whether this machine has it)
LEVELS = {"vnni": (_vnni_tile, cpu.has_vnni()), "portable": (_portable_tile, True)}
LEVEL = cpu.level()
if not LEVELS.get(LEVEL, (None, False))[1]:
    here = ", ".join(name for name, (_, has) in LEVELS.items() if has)
    raise OptionError(f"RWKV_ENGINE_LEVEL: got {LEVEL!r}, this machine has {here}")
_one, _many = (LEVELS[LEVEL][0](tokens) for tokens in (1, TOKENS))


def room_for(cols: int, tokens: int) -> int:
    """float32 numbers of private scratch that a product of `tokens` inputs of `cols` numbers takes."""
    return TOKENS * STRIP + tokens * -(-cols // GROUP) * (2 + GROUP // 4)


@overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
def matmul_int8(lane, slot, y, W, layer, x, finish):
    """`kernels.matmul.matmul` for Int8Rows. Every lane quantizes the inputs for itself: that is less work than a barrier costs."""
    if not (isinstance(W, types.NamedTuple) and W.instance_class is Int8Rows):
        return None

    def implementation(lane, slot, y, W, layer, x, finish):
        tokens, groups = x.shape[0], (W.cols + GROUP - 1) // GROUP
        out, room = matrix(address_of(lane.room), TOKENS, STRIP), address_of(lane.room) + TOKENS * STRIP * 4
        start, scale, q = room, room + tokens * groups * 4, room + 2 * tokens * groups * 4
        pitch = groups * GROUP
        ready = False
        block = max(1, TICKET_BYTES // (groups * GROUP_BYTES))
        strips = (W.rows + STRIP - 1) // STRIP
        ticket = take(lane, slot, -1)
        while ticket * block < strips:
            if not ready:
                for t in range(tokens):
                    here = t * groups * 4
                    quantize_inputs(bytes_at(q + t * pitch, pitch), integers(start + here, groups), floats(scale + here, groups), x[t])
                ready = True
            for strip in range(ticket * block, min((ticket + 1) * block, strips)):
                at = W.at[layer] + strip * groups * GROUP_BYTES
                for t in range(0, tokens, TOKENS):
                    here = min(TOKENS, tokens - t)
                    if here == TOKENS:
                        _many(at, q + t * pitch, start + t * groups * 4, scale + t * groups * 4, groups, pitch, groups * 4, address_of(out))
                    else:
                        for u in range(here):
                            part = (t + u) * groups * 4
                            _one(
                                at,
                                q + (t + u) * pitch,
                                start + part,
                                scale + part,
                                groups,
                                pitch,
                                groups * 4,
                                address_of(out) + u * STRIP * 4,
                            )
                    for u in range(here):
                        for r in range(min(STRIP, W.rows - strip * STRIP)):
                            row = strip * STRIP + r
                            p = out[u, r]
                            y[t + u, row] = y[t + u, row] + p if finish == ADD else finished(p, finish)
            ticket = take(lane, slot, ticket)

    return implementation
