"""Matrix products over INT8 weights stored by units, which do not read the weights of inputs that are zero.

Behind relu^2, most inputs of a channel mix's second matrix are zero. Leaving them out changes no bit of the sums
(`unit_tiles`), so results are those of `matmul_int8`, and do not depend on how many tokens share a pass. With up to
FEW tokens, only units that are not zero for all of them are read; with more, nearly all would be.
Twin: `unit_layout.by_strips`, and `int8_layout.unpacked` of that.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from rwkv_engine.kernels._jit import FASTMATH, kernel
from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.lanes import take
from rwkv_engine.kernels.matmul import ADD, activate, matmul
from rwkv_engine.kernels.matmul_int8 import LEVEL, quantizing
from rwkv_engine.kernels.pointers import address_of, bytes_at, floats, integers
from rwkv_engine.kernels.unit_tiles import (
    AHEAD,
    SCALE_BYTES,
    fetch_scales,
    gathering,
    lowest,
    not_zero,
    tile_of,
    words_not_zero,
)
from rwkv_engine.numbers.int8_layout import BLOCK, GROUP, LINE, STRIP
from rwkv_engine.numbers.unit_layout import ROWS, STRIPS

#: tokens for which units are left out
FEW = 8
#: units are left out where that is more than 1 / SHARE of them: listing the others takes time
SHARE = 8
#: the most rows of a ticket, of which a lane reads a unit's weights in one piece. On a Zen 4, where 85 % are zero,
#: pieces of 512 bytes take 0.8 of the time of 256, and 0.65 of 128
TICKET_ROWS = 512
#: groups before its own in which a group's scales are prefetched
SCALES_AHEAD = 4
DOT = LEVELS[LEVEL].dot
#: bytes of an input in a plane, and whether there are two planes
_SIZE, _SPLIT = (1 if DOT.split else 2), DOT.split
#: whether tiles of all 4 strips fit into registers: then a tile for 1 or 2 tokens merges the units itself
_WIDE = DOT.part == LINE
#: (strips, tokens) of tiles, largest first
SIZES = ((4, 2), (4, 1)) if _WIDE else ((1, 2), (1, 1)) if DOT.part > STRIP else ((1, 1),)


class Int8Units(NamedTuple):
    """INT8 matrices by units, one per layer.

    at          [L] addresses of the matrices [groups][bytes of a group] in the layout of unit_layout.
    rows, cols  of the matrices, without padding.
    """

    at: np.ndarray
    rows: int
    cols: int


class Job(NamedTuple):
    """Shared by all groups of a product: addresses, distances in bytes, and the number of tokens.

    plane        from a token's upper to its lower bytes.
    x_pitch      to the next token's inputs.
    start        address of the first token's starts, int32 for each group.
    start_pitch  to the next token's.
    out          address of the first token's products, [TICKET_ROWS] each.
    """

    plane: int
    x_pitch: int
    start: int
    start_pitch: int
    out: int
    tokens: int


def _cut(sizes: Sequence[tuple[int, int]], gathered: bool) -> Any:
    """Make a kernel: 64 rows of a group by tokens from t on, with tiles of the first size, then the others."""
    if not sizes:

        @kernel
        def nothing(job, lines, at, quads, x, group, scales, row, t):
            """Nothing is left: the last tile fits everywhere."""

        return nothing

    strips, tokens = sizes[0]
    run, others = tile_of(DOT, strips, tokens, gathered), _cut(sizes[1:], gathered)

    @kernel
    def cut(job, lines, at, quads, x, group, scales, row, t):
        done = t + (job.tokens - t) // tokens * tokens
        for u in range(t, done, tokens):
            inputs, start = x + u * job.x_pitch, job.start + u * job.start_pitch + 4 * group
            out = job.out + 4 * (u * TICKET_ROWS + row)
            for s in range(0, STRIPS, strips):
                run(
                    lines + s * LINE,
                    at,
                    quads,
                    inputs,
                    job.plane,
                    job.x_pitch,
                    start,
                    job.start_pitch,
                    scales + s * SCALE_BYTES,
                    out + 4 * STRIP * s,
                    4 * TICKET_ROWS,
                )
        if done < job.tokens:
            others(job, lines, at, quads, x, group, scales, row, done)

    return cut


_gather, _multiply = gathering(DOT), _cut(SIZES, True)
_read = _cut(SIZES if _WIDE else (), False)
_quantize_inputs = quantizing(GROUP)


@kernel
def used(q, pitch, tokens, first, cols):
    """Bits of those of 16 inputs that are not zero for all tokens."""
    bits = 0
    for t in range(tokens):
        at = q + t * pitch + first * _SIZE
        bits |= not_zero(at, at + cols) if _SPLIT else words_not_zero(at)
    return bits


@kernel
def pays(q, pitch, tokens, cols):
    """Whether so many units can be left out that it takes less time than to list and gather the others."""
    zeros = 0
    for first in range(0, cols, 16):
        bits = used(q, pitch, tokens, first, cols) ^ 0xFFFF
        while bits != 0:
            bits &= bits - 1
            zeros += 1
        if zeros * SHARE > cols:
            return True
    return False


@kernel
def choose(quads, places, tokens, cols, q, pitch, taken, rows):
    """List the units to read: those of inputs that are not zero for all tokens.

    quads   [groups + 1] <- each group's first quad.
    places  <- where the quads' units are, in bytes from the start of a matrix with so many rows.
    taken   address <- the inputs at address q, in the order of places; both have `pitch` bytes for a token.
    A group's last quad is filled up with a unit again, and with zeros as its inputs.
    """
    # of a token, upper bytes and then lower ones; or words
    other = cols if _SPLIT else 1
    here, there, number = bytes_at(q, tokens * pitch), bytes_at(taken, tokens * pitch), 0
    for g in range(cols // GROUP):
        quads[g] = number // 4
        for first in range(g * GROUP, (g + 1) * GROUP, 16):
            bits = used(q, pitch, tokens, first, cols)
            while bits != 0:
                k = first + lowest(bits)
                bits &= bits - 1
                places[number] = (k + g * SCALE_BYTES // STRIP) * rows
                for t in range(tokens):
                    own, new = t * pitch + k * _SIZE, t * pitch + number * _SIZE
                    there[new] = here[own]
                    there[new + other] = here[own + other]
                number += 1
        while number % 4 != 0:
            places[number] = places[number - 1]
            for t in range(tokens):
                new = t * pitch + number * _SIZE
                there[new] = there[new + other] = 0
            number += 1
    quads[cols // GROUP] = number // 4
    for after in range(number, number + 4 * AHEAD):
        places[after] = 0


@kernel
def list_all(quads, places, cols, rows):
    """`choose` for all inputs, which stay where they are."""
    for g in range(cols // GROUP + 1):
        quads[g] = g * (GROUP // 4)
    for k in range(cols):
        places[k] = (k + k // GROUP * SCALE_BYTES // STRIP) * rows
    for after in range(cols, cols + 4 * AHEAD):
        places[after] = 0


@kernel
def rows_of_ticket(lane, rows):
    """A multiple of 64: a lane's share of the rows, but at most TICKET_ROWS."""
    return min(TICKET_ROWS, (rows // ROWS + lane.lanes - 1) // lane.lanes * ROWS)


def room_for(cols: int, tokens: int) -> int:
    """float32 numbers of private scratch that a product of so many inputs takes."""
    cols = -(-cols // BLOCK) * BLOCK
    inputs = (tokens + min(tokens, FEW)) * (2 * cols + LINE) // 4
    lists = cols // GROUP + 1 + cols + 4 * AHEAD
    return GROUP * LINE // 4 + tokens * (TICKET_ROWS + 1 + cols // GROUP) + inputs + lists


def _product(lane, slot, y, W, layer, x, finish):
    tokens, cols = x.shape[0], (W.cols + BLOCK - 1) // BLOCK * BLOCK
    groups, rows = cols // GROUP, (W.rows + ROWS - 1) // ROWS * ROWS
    each = rows_of_ticket(lane, rows)
    tickets = (rows + each - 1) // each
    ticket = take(lane, slot, tickets, -1)
    if ticket >= tickets:
        return
    lines = address_of(lane.room)
    out = lines + GROUP * LINE
    scale = out + tokens * TICKET_ROWS * 4
    start, pitch = scale + tokens * 4, 2 * cols + LINE
    q = start + tokens * groups * 4
    taken = q + tokens * pitch if tokens <= FEW else q
    first_quad = taken + tokens * pitch
    first_place = first_quad + 4 * (groups + 1)
    quads, places = integers(first_quad, groups + 1), integers(first_place, cols + 4 * AHEAD)
    factors = floats(scale, tokens)
    for t in range(tokens):
        starts = integers(start + t * groups * 4, groups)
        factors[t] = _quantize_inputs(q + t * pitch, starts, x[t])
    x_at = q
    if tokens <= FEW and pays(q, pitch, tokens, cols):
        choose(quads, places, tokens, cols, q, pitch, taken, rows)
        x_at = taken
    else:
        list_all(quads, places, cols, rows)
    job = Job(cols, pitch, start, groups * 4, out, tokens)
    while ticket < tickets:
        first = ticket * each
        last = min(first + each, rows)
        sums = floats(out, tokens * TICKET_ROWS)
        for n in range(tokens * TICKET_ROWS):
            sums[n] = 0
        for g in range(groups):
            count, at, inputs = (
                quads[g + 1] - quads[g],
                first_place + 16 * quads[g],
                x_at + 4 * _SIZE * quads[g],
            )
            group_bytes = (GROUP + SCALE_BYTES // STRIP) * rows
            scales = W.at[layer] + g * group_bytes + GROUP * rows
            for row in range(first, last if count > 0 else first, ROWS):
                here, of_rows = W.at[layer] + row, scales + row // STRIP * SCALE_BYTES
                fetch_scales(of_rows + SCALES_AHEAD * group_bytes)
                if _WIDE and tokens <= 2:
                    _read(job, at, here, count, inputs, g, of_rows, row - first, 0)
                else:
                    _gather(lines, here, at, count)
                    _multiply(job, lines, 0, count, inputs, g, of_rows, row - first, 0)
        last = min(last, W.rows)
        finish_rows(y, first, last, out, factors, finish)
        activate(y, first, last, finish)
        ticket = take(lane, slot, tickets, ticket)


@kernel
def finish_rows(y, first, last, out, factors, finish):
    """y [T, rows] at rows [first, last) <- their products, at address `out`, by the tokens' factors (+= for ADD)."""
    for t in range(y.shape[0]):
        products, here, factor = floats(out + t * TICKET_ROWS * 4, last - first), y[t, first:last], factors[t]
        if finish == ADD:
            for r in range(last - first):
                here[r] += products[r] * factor
        else:
            for r in range(last - first):
                here[r] = products[r] * factor


@overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
def matmul_units(lane, slot, y, W, layer, x, finish):
    """`kernels.matmul.matmul` for Int8Units."""
    return _product if isinstance(W, types.NamedTuple) and W.instance_class is Int8Units else None
