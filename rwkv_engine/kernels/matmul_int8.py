"""Matrix products over INT8 weights: exact integers inside a group of 32 inputs, float32 between groups.

Inputs become 16-bit integers on the fly, all numbers of a token by one scale: with 8 bits they would lose as much as the weights
do, and in decoding the second byte costs nothing, because memory is what is waited for. Weights lie in strips of 16 rows and
are read as one stream; see `int8_layout` for the layout, `int8_levels` and `int8_amx` for the instructions. Twin:
`int8_layout.unpacked`.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from rwkv_engine.kernels import int8_amx
from rwkv_engine.kernels._jit import FASTMATH, exact, kernel
from rwkv_engine.kernels.int8_levels import LEVELS, chosen, group_sum, tile
from rwkv_engine.kernels.lanes import take
from rwkv_engine.kernels.matmul import ADD, activate, matmul
from rwkv_engine.kernels.pointers import (
    address_of,
    bits_of_float32,
    bytes_at,
    float32_of_bits,
    floats,
    integers,
    words_at,
)
from rwkv_engine.numbers.int8_layout import BLOCK, BLOCK_BYTES, GROUP, GROUPS, LINE, STRIP
from rwkv_engine.system import cpu

#: largest input integer; its upper byte, rounded, still fits 8 bits
LARGEST = 127 * 256 + 127
#: bytes of weights behind one ticket
TICKET_BYTES = 65536
_MAGIC = np.float32(1.5 * 2**23)
LEVEL = chosen()
STRIPS, TOKENS = LEVELS[LEVEL].shape
_SPLIT, _OFFSET = LEVELS[LEVEL].split, LEVELS[LEVEL].offset
#: tokens of an AMX tile; 0: without AMX, where what follows `if AMX_TOKENS` is not compiled
AMX_TOKENS = int8_amx.TOKENS if LEVEL == "amx" else 0
_configure, _sixteen, _release = int8_amx.configure, int8_amx.multiply, int8_amx.release
#: lines of the strips after its own that a tile of many tokens fetches for each of its blocks, so that memory is read while others
#: are multiplied: the 16 tiles of a chunk of 64 tokens fetch 32 of a block pair's 34 lines. A Zen 4 does 27.5 products a cycle
#: instead of 25.5, with 3 lines no more; where `prefetch_ahead` is at work already, nobody has measured it
FOLLOWING = 2 if cpu.reads_ahead() else 0
_one, _many = tile(LEVELS[LEVEL], 1, 1), tile(LEVELS[LEVEL], STRIPS, TOKENS, FOLLOWING)
#: numbers of the largest tile
TILE = max(STRIPS * TOKENS, AMX_TOKENS) * STRIP


class Int8Rows(NamedTuple):
    """INT8 matrices of one kind, a layer each.

    at     [L] addresses of strips [ceil(rows / 16)][blocks][BLOCK_BYTES], laid out as int8_layout says.
    rows, cols  as the matrices are seen from outside.
    """

    at: np.ndarray
    rows: int
    cols: int


@exact
def rounded(number, factor):
    """number * factor, at most 2^21 in size, as int32: to nearest, ties to even; what adding 1.5 * 2^23 leaves in the low bits."""
    return np.int32(bits_of_float32(number * factor + _MAGIC)) - np.int32(bits_of_float32(_MAGIC))


@kernel
def quantize_inputs(q, start, x):
    """At address q <- x [cols] as integers of at most LARGEST; start [groups] int32 <- -offset * sum of a group's. Returns the scale.

    q has room for blocks * BLOCK numbers of 2 bytes; what lies behind x is filled with zeros. Levels that split read the upper
    bytes and, behind all of them, the lower bytes; the others 16-bit numbers. x = integer * scale, rounded to nearest; a NaN
    or infinity among the inputs becomes the scale, so that it is not lost.
    """
    cols, room = x.shape[0], start.shape[0] * GROUP
    bits = integers(address_of(x), cols)
    largest_bits = np.int32(0)
    for i in range(cols):
        largest_bits = max(largest_bits, bits[i] & np.int32(0x7FFFFFFF))
    largest = float32_of_bits(np.uint32(largest_bits))
    inverse = (
        np.float32(LARGEST) / largest
        if largest > np.float32(1e-30) and largest_bits < 0x7F800000
        else np.float32(0)
    )
    upper, lower, words = bytes_at(q, room), bytes_at(q + room, room), words_at(q, room)
    for i in range(cols):
        n = rounded(x[i], inverse)
        if _SPLIT:
            upper[i] = (n + np.int32(128)) >> np.int32(8)
            lower[i] = n
        else:
            words[i] = n
    for i in range(cols, room):
        if _SPLIT:
            upper[i] = lower[i] = 0
        else:
            words[i] = 0
    if _OFFSET:
        for g in range(start.shape[0]):
            start[g] = np.int32(-_OFFSET) * group_sum(q + g * GROUP, q + room + g * GROUP)
    return largest / np.float32(LARGEST)


def room_for(cols: int, tokens: int) -> int:
    """float32 numbers of private scratch that a product of `tokens` inputs of `cols` numbers takes."""
    groups = GROUPS * -(-cols // BLOCK)
    return TILE + tokens * (1 + groups + groups * GROUP // 2)


@overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
def matmul_int8(lane, slot, y, W, layer, x, finish):
    """`kernels.matmul.matmul` for Int8Rows. Every lane quantizes the inputs for itself: that is less work than a barrier costs."""
    if not (isinstance(W, types.NamedTuple) and W.instance_class is Int8Rows):
        return None

    def implementation(lane, slot, y, W, layer, x, finish):
        tokens, blocks = x.shape[0], (W.cols + BLOCK - 1) // BLOCK
        strips, strip_bytes = (W.rows + STRIP - 1) // STRIP, blocks * BLOCK_BYTES
        least = 1 if tokens == 1 else STRIPS
        block = max(1, TICKET_BYTES // strip_bytes // least) * least
        tickets = (strips + block - 1) // block
        ticket = take(lane, slot, tickets, -1)
        if ticket >= tickets:
            return
        out = address_of(lane.room)
        scale = floats(out + TILE * 4, tokens)
        start, start_pitch = address_of(scale) + tokens * 4, blocks * GROUPS * 4
        q, plane, q_pitch = start + tokens * start_pitch, blocks * BLOCK, blocks * BLOCK * 2
        for t in range(tokens):
            scale[t] = quantize_inputs(
                q + t * q_pitch, integers(start + t * start_pitch, blocks * GROUPS), x[t]
            )
        tiled = 0
        if AMX_TOKENS:
            tiled = tokens // AMX_TOKENS * AMX_TOKENS
            if tiled > 0:
                _configure()
        while ticket < tickets:
            last = min((ticket + 1) * block, strips)
            if AMX_TOKENS:
                for strip in range(ticket * block, last):
                    at = W.at[layer] + strip * strip_bytes
                    for t in range(0, tiled, AMX_TOKENS):
                        _sixteen(at, q + t * q_pitch, plane, q_pitch, blocks, out)
                        finish_tile(y, W.rows, strip, 1, t, AMX_TOKENS, out, scale, finish)
            for strip in range(ticket * block, last, STRIPS):
                at = W.at[layer] + strip * strip_bytes
                t, later = tiled, at + STRIPS * strip_bytes
                while t + TOKENS <= tokens and strip + STRIPS <= last:
                    here, begin = q + t * q_pitch, start + t * start_pitch
                    _many(at, strip_bytes, here, plane, q_pitch, begin, start_pitch, blocks, out, later)
                    finish_tile(y, W.rows, strip, STRIPS, t, TOKENS, out, scale, finish)
                    t, later = t + TOKENS, later + blocks * FOLLOWING * LINE
                for u in range(t, tokens):
                    for s in range(strip, min(strip + STRIPS, last)):
                        here = at + (s - strip) * strip_bytes
                        _one(
                            here,
                            strip_bytes,
                            q + u * q_pitch,
                            plane,
                            q_pitch,
                            start + u * start_pitch,
                            start_pitch,
                            blocks,
                            out,
                            0,
                        )
                        finish_tile(y, W.rows, s, 1, u, 1, out, scale, finish)
            activate(y, ticket * block * STRIP, min(last * STRIP, W.rows), finish)
            ticket = take(lane, slot, tickets, ticket)
        if AMX_TOKENS:
            if tiled > 0:
                _release()

    return implementation


@kernel
def finish_tile(y, rows, strip, strips, first, tokens, out, scale, finish):
    """y [T, rows] <- scale * out (+= for ADD), out [tokens][strips * 16] being a tile whose corner is row strip * 16, token `first`."""
    lo = strip * STRIP
    count = min(strips * STRIP, rows - lo)
    for u in range(tokens):
        products, factor, here = (
            floats(out + u * strips * STRIP * 4, count),
            scale[first + u],
            y[first + u, lo : lo + count],
        )
        if finish == ADD:
            for r in range(count):
                here[r] += products[r] * factor
        else:
            for r in range(count):
                here[r] = products[r] * factor
