"""Matrix products over INT8 weights: exact integers inside a group of 32 inputs, float32 between groups.

Inputs are rounded to 16-bit integers during the product, with one scale per token: 8 bits would lose as much
as the weights do, and in decoding the second byte is free, because memory is the bottleneck. Weights are
stored in strips of 16 rows and read as one stream; see `int8_layout` for the layout, `int8_levels` for the
instructions and the tiles that a product is cut into. The result does not depend on the tiles.
Twin: `int8_layout.unpacked`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from rwkv_engine.kernels._jit import FASTMATH, exact, kernel
from rwkv_engine.kernels.int8_levels import LEVELS, chosen
from rwkv_engine.kernels.int8_tiles import INT8, Layout, Tile, emitted, group_sum, multiply
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
from rwkv_engine.numbers.int8_layout import BLOCK, LINE, STRIP

#: largest input integer: its rounded upper byte still fits in 8 bits
LARGEST = 127 * 256 + 127
#: bytes of weights per ticket
TICKET_BYTES = 65536
_MAGIC = np.float32(1.5 * 2**23)
LEVEL = chosen()
TILES = LEVELS[LEVEL].tiles
_SPLIT, _OFFSET = LEVELS[LEVEL].dot.split, LEVELS[LEVEL].dot.offset


class Int8Rows(NamedTuple):
    """INT8 matrices, one per layer.

    at          [L] addresses of strips [ceil(rows / 16)][blocks][BLOCK_BYTES] in the layout of int8_layout.
    rows, cols  of the matrices, without padding.
    """

    at: np.ndarray
    rows: int
    cols: int


@exact
def rounded(number, factor):
    """number * factor (at most 2^21 in size) as int32, to nearest, ties to even, by adding 1.5 * 2^23."""
    return np.int32(bits_of_float32(number * factor + _MAGIC)) - np.int32(bits_of_float32(_MAGIC))


def quantizing(group: int) -> Any:
    """Compile-time maker of `quantize_inputs` for formats with groups of so many inputs."""
    sum_of = group_sum(group)

    @kernel
    def quantize_inputs(q, start, x):
        """At address q <- x [cols] as integers of at most LARGEST; start [groups] int32 <- -offset * sum of a
        group's.

        Returns the scale.

        q has room for blocks * BLOCK numbers of 2 bytes; what lies behind x is filled with zeros. Levels that
        split read the upper bytes and, behind all of them, the lower bytes; the others 16-bit numbers. x =
        integer * scale, rounded to nearest; a NaN or infinity among the inputs becomes the scale, so that it
        is not lost.
        """
        cols, room = x.shape[0], start.shape[0] * group
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
                start[g] = np.int32(-_OFFSET) * sum_of(q + g * group, q + room + g * group)
        return largest / np.float32(LARGEST)

    return quantize_inputs


def _largest(tiles: Sequence[Tile]) -> int:
    """Size of the largest tile in numbers."""
    return max(tile.strips * tile.tokens for tile in tiles) * STRIP


def room_in(tiles: Sequence[Tile], layout: Layout) -> Callable[[int, int], int]:
    """room(cols, tokens): float32 numbers of private scratch that a product of so many inputs takes."""

    def room(cols: int, tokens: int) -> int:
        blocks = -(-cols // BLOCK)
        spare = max(tile.spare for tile in tiles) * blocks * BLOCK // 2
        return _largest(tiles) + tokens * (1 + blocks * (layout.groups + BLOCK // 2)) + spare

    return room


room_for = room_in(TILES, INT8)


class Job(NamedTuple):
    """Shared by all tiles of a product: addresses, distances in bytes, and sizes.

    weights      address of the first strip of the layer's matrix.
    strip_bytes  to the next strip.
    q            address of the first token's inputs.
    plane        from its upper to its lower bytes.
    q_pitch      to the next token's inputs.
    start        address of the first token's starts.
    start_pitch  to the next token's starts.
    scale        address of the tokens' scales, float32.
    out          address of space for the products of a tile.
    blocks       of a strip.
    tokens       of the pass.
    stop         the strip before which lines are prefetched: 0 for a single token, which reads one stream anyway.
    """

    weights: int
    strip_bytes: int
    q: int
    plane: int
    q_pitch: int
    start: int
    start_pitch: int
    scale: int
    out: int
    blocks: int
    tokens: int
    stop: int


def _cut(tiles: Sequence[Tile], layout: Layout) -> Any:
    """Make a kernel: strips [strip, stop) by tokens from t on, with the first of `tiles`, then the others."""
    if not tiles:

        @kernel
        def nothing(y, rows, job, strip, stop, t, finish):
            """Nothing is left: the last tile fits everywhere."""

        return nothing

    run, others = multiply(tiles[0]), _cut(tiles[1:], layout)
    strips, tokens, spare = tiles[0].strips, tiles[0].tokens, tiles[0].spare
    block_lines = strips * layout.block_bytes // LINE

    @kernel
    def cut(y, rows, job, strip, stop, t, finish):
        done = t
        if (stop - strip) % strips == 0:
            done += (job.tokens - t + spare) // tokens * tokens
        # the first tile's runs share the strips that come next, which they fetch
        runs = (done - t) // tokens if t == 0 and stop < job.stop else 0
        lines = (block_lines + runs - 1) // runs if runs > 0 else 0
        later = job.weights + stop * job.strip_bytes
        for s in range(strip, stop, strips):
            at = job.weights + s * job.strip_bytes
            for u in range(t, done, tokens):
                x, start = job.q + u * job.q_pitch, job.start + u * job.start_pitch
                run(
                    at,
                    job.strip_bytes,
                    x,
                    job.plane,
                    job.q_pitch,
                    start,
                    job.start_pitch,
                    job.blocks,
                    job.out,
                    later,
                    lines,
                )
                finish_tile(y, rows, s, strips, u, min(tokens, job.tokens - u), job.out, job.scale, finish)
                later += job.blocks * lines * LINE
        if done < job.tokens:
            others(y, rows, job, strip, stop, done, finish)

    return cut


def _around(tiles: Sequence[Tile], emits: Sequence[Callable[..., None]]) -> Any:
    """Make a kernel that runs, for each tile that is used for this many tokens, its entry in `emits`."""
    if not tiles:

        @kernel
        def nothing(tokens):
            """No more tiles."""

        return nothing

    run, others = emitted(emits[0]), _around(tiles[1:], emits[1:])
    least = tiles[0].tokens - tiles[0].spare

    @kernel
    def around(tokens):
        if tokens >= least:
            run()
        others(tokens)

    return around


def product(tiles: Sequence[Tile], layout: Layout = INT8) -> Any:
    """Compile-time maker of the whole product, cut into `tiles`: of what `matmul` is for weights
    that lie as `layout` says.

    Every lane quantizes the inputs itself: that is less work than a barrier.
    """
    multiply_strips, largest = _cut(tiles, layout), _largest(tiles)
    begin, end = _around(tiles, [tile.begin for tile in tiles]), _around(tiles, [tile.end for tile in tiles])
    quantize_inputs, groups = quantizing(layout.group), layout.groups
    block_bytes, tail = layout.block_bytes, layout.tail
    #: strips that are multiplied by all tokens before the next ones; a multiple of every tile's
    group = max(tile.strips for tile in tiles)

    def implementation(lane, slot, y, W, layer, x, finish):
        tokens, blocks = x.shape[0], (W.cols + BLOCK - 1) // BLOCK
        strips, strip_bytes = (W.rows + STRIP - 1) // STRIP, blocks * block_bytes + tail
        least = 1 if tokens == 1 else group
        block = max(1, TICKET_BYTES // strip_bytes // least) * least
        tickets = (strips + block - 1) // block
        ticket = take(lane, slot, tickets, -1)
        if ticket >= tickets:
            return
        out = address_of(lane.room)
        scale, start_pitch = out + largest * 4, blocks * groups * 4
        start = scale + tokens * 4
        q, plane, q_pitch = start + tokens * start_pitch, blocks * BLOCK, blocks * BLOCK * 2
        scales = floats(scale, tokens)
        for t in range(tokens):
            starts = integers(start + t * start_pitch, blocks * groups)
            scales[t] = quantize_inputs(q + t * q_pitch, starts, x[t])
        own = tickets * (lane.number + 1) // lane.lanes * block if tokens > 1 else 0
        at, stop = W.at[layer], min(own, strips)
        job = Job(at, strip_bytes, q, plane, q_pitch, start, start_pitch, scale, out, blocks, tokens, stop)
        together = block if tokens == 1 else group
        begin(tokens)
        while ticket < tickets:
            last = min((ticket + 1) * block, strips)
            for strip in range(ticket * block, last, together):
                multiply_strips(y, W.rows, job, strip, min(strip + together, last), 0, finish)
            activate(y, ticket * block * STRIP, min(last * STRIP, W.rows), finish)
            ticket = take(lane, slot, tickets, ticket)
        end(tokens)

    return implementation


_product = product(TILES)


@overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
def matmul_int8(lane, slot, y, W, layer, x, finish):
    """`kernels.matmul.matmul` for Int8Rows."""
    return _product if isinstance(W, types.NamedTuple) and W.instance_class is Int8Rows else None


@kernel
def finish_tile(y, rows, strip, strips, first, tokens, out, scale, finish):
    """y [T, rows] <- scale * out (+= for ADD), for a tile that starts at row strip * 16 and token `first`.

    out    address of the tile, [tokens][strips * 16].
    scale  address of the first token's scale.
    """
    lo = strip * STRIP
    count = min(strips * STRIP, rows - lo)
    scales = floats(scale, first + tokens)
    for u in range(tokens):
        products, here = floats(out + u * strips * STRIP * 4, count), y[first + u, lo : lo + count]
        factor = scales[first + u]
        if finish == ADD:
            for r in range(count):
                here[r] += products[r] * factor
        else:
            for r in range(count):
                here[r] = products[r] * factor
