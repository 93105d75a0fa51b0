"""Matrix products over float weights: F32, BF16 and F16 rows, read where they are stored.

Decoding (one token) reads one row at a time, in memory order. A chunk of tokens is computed in tiles of rows
x tokens, so a weight is used for every token while it is in the first-level cache. For few tokens, and for
matrices of few rows, such as low-rank pairs, these tiles add in the order of a single token. So a pass of
drafts gives the bits of single tokens. An INT8 model rounds what comes from low-rank pairs, and the rounding
could turn a difference in the last bit into a full step.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from rwkv_engine.kernels import simd
from rwkv_engine.kernels._jit import FASTMATH, kernel
from rwkv_engine.kernels.lanes import Lane, take
from rwkv_engine.kernels.matmul import ADD, activate, expand, matmul, read_row
from rwkv_engine.kernels.pointers import address_of, float32_of_bits, floats, halves, matrix
from rwkv_engine.kernels.simd_channels import expand_tile
from rwkv_engine.numbers.shapes import ALIKE
from rwkv_engine.system.cpu import wide_vectors


class F32Rows(NamedTuple):
    """float32 matrices, one per layer: row-major [rows, cols] at at[layer] (addresses, int64 [L])."""

    at: np.ndarray
    rows: int
    cols: int


class BF16Rows(NamedTuple):
    """Like F32Rows, with BF16 bits."""

    at: np.ndarray
    rows: int
    cols: int


class F16Rows(NamedTuple):
    """Like F32Rows, with F16 bits."""

    at: np.ndarray
    rows: int
    cols: int


class F32Heads(NamedTuple):
    """float32 second halves of low-rank pairs, by heads: head h is [rank, N] at at[layer] + h * pitch bytes.

    One head's parts of several pairs are contiguous, so they are read as one stream of memory.
    """

    at: np.ndarray
    heads: int
    rank: int
    pitch: int


class BF16Heads(NamedTuple):
    """Like F32Heads, with BF16 bits."""

    at: np.ndarray
    heads: int
    rank: int
    pitch: int


class F16Heads(NamedTuple):
    """Like F32Heads, with F16 bits."""

    at: np.ndarray
    heads: int
    rank: int
    pitch: int


#: sums are not reordered, so a token's bits do not depend on the tile it is in
IN_ORDER = {"contract"}
#: maximum bytes of weights per ticket
TICKET_BYTES = 131072
#: up to this many rows, chunks add in the order of a single token: low-rank pairs have 16 to 480
FEW_ROWS = 512
#: rows x tokens of a tile: 16 accumulators of 512 bits if there are 32 registers, else 4 of 16 floats
TILE = 4 if wide_vectors() else 2
#: accumulators of a single token's product, and rows x tokens of a tile that adds in the same order
SUMS = 4 if wide_vectors() else 2
FEW_TILE, FEW_TOKENS = TILE // 2, 2
#: such a tile prefetches what is at least so many bytes ahead
FETCHED_BYTES = 4096
#: strips of 16 channels x tokens of an expansion, for the same registers
_EXPAND_STRIPS, EXPAND_TOKENS = (4, 4) if wide_vectors() else (2, 2)


@kernel
def f32_of_f32(x: float) -> float:
    """A stored float32."""
    return x


@kernel
def f32_of_bf16(bits: int) -> float:
    """BF16 bits (uint16) to float32."""
    return float32_of_bits(np.uint32(bits) << np.uint32(16))


@kernel
def f32_of_f16(bits: int) -> float:
    """F16 bits (uint16) to float32; exact."""
    moved = np.uint32(bits & 0x7FFF) << np.uint32(13)
    size = float32_of_bits(moved) * np.float32(2.0**112)
    if bits & 0x7C00 == 0x7C00:  # infinite, or no number
        size = float32_of_bits(moved | np.uint32(0x7F800000))
    return -size if bits & 0x8000 else size


def room_for_floats(cols: int, tokens: int) -> int:
    """float32 numbers of private scratch for a product of `tokens` inputs of `cols` numbers."""
    return max(TILE * tokens, ALIKE * cols + FEW_TOKENS * FEW_TILE)


def _is(W: Any, kind: type) -> bool:
    return isinstance(W, types.NamedTuple) and W.instance_class is kind


def _register(
    rows: type, heads: type, load: simd.Load, size: int, view: Any, number: Any, paired: bool
) -> None:
    """Overload `matmul` and `read_row` for the `rows` of one float format, `expand` for its `heads`.

    load, size  as in simd.dot_tile.
    view        typed view of an address.
    number      one stored element to float32.
    paired      whether rows are read by `simd.bf16_pairs`.
    """
    ordered, alike = simd.in_order(load, size), simd.bf16_pairs if paired else simd.in_order(load, size)
    dot = simd.dot_row(alike, size, SUMS)
    tile, strip, single = (
        simd.dot_tile(ordered, size, r, t, 1) for r, t in ((TILE, TILE), (TILE, 1), (1, 1))
    )
    few = simd.dot_tile(alike, size, FEW_TILE, FEW_TOKENS, SUMS)

    @register_jitable(fastmath=FASTMATH)
    def tail(at: int, x: np.ndarray, start: int, cols: int) -> float:
        """The rest of a row's dot product after the vector loop."""
        w = view(at, cols)
        total = np.float32(0)
        for k in range(start, cols):
            total += number(w[k]) * x[k]
        return total

    # lines of a round of a tile's loop
    each = FEW_TILE * SUMS * simd.LANES * size // 64

    @register_jitable(fastmath=IN_ORDER)
    def few_rows(lane, y, at, first, last, stop, x, fresh, finish):
        """y [T, rows] <- rows [first, last) of the matrix at `at`; sums have the same order for any T.

        stop   the row before which rows are prefetched: while some are multiplied, the next are read.
        fresh  whether this is the lane's first ticket, which arranges inputs of few tokens for all.
        """
        tokens, cols = x.shape[0], x.shape[1]
        pitch, body = cols * size, cols - cols % (SUMS * simd.LANES)
        inputs = matrix(address_of(lane.room), ALIKE, cols)
        out = matrix(address_of(lane.room) + 4 * ALIKE * cols, FEW_TOKENS, FEW_TILE)
        ahead = max(FEW_TILE * pitch, FETCHED_BYTES)
        until = stop - ahead // pitch
        for start in range(0, tokens, ALIKE):
            many, x_at = min(ALIKE, tokens - start), address_of(x) + start * cols * 4
            for u in range(many if paired and body > 0 and (fresh or tokens > ALIKE) else 0):
                simd.apart(address_of(inputs[u]), x_at + u * cols * 4, body)
            x_at = address_of(inputs) if paired and body > 0 else x_at
            runs, row = max(1, many // FEW_TOKENS), first
            part, lines = FEW_TILE * pitch // runs, (each + runs - 1) // runs if tokens > 1 else 0
            while row < last:
                here, rows_here = at + row * pitch, FEW_TILE if row + FEW_TILE <= last and body > 0 else 1
                later, u, fetched = here + ahead, 0, lines if row < until else 0
                while u < many:
                    x_here, t = x_at + u * cols * 4, start + u
                    if rows_here == FEW_TILE and u + FEW_TOKENS <= many:
                        few(
                            here, pitch, x_here, cols * 4, body, address_of(out), FEW_TILE * 4, later, fetched
                        )
                        for v in range(FEW_TOKENS):
                            for r in range(FEW_TILE):
                                p = out[v, r]
                                if body < cols:
                                    p += tail(here + r * pitch, x[t + v], body, cols)
                                y[t + v, row + r] = y[t + v, row + r] + p if finish == ADD else p
                        later, u = later + part, u + FEW_TOKENS
                    else:
                        for r in range(rows_here):
                            p = dot(here + r * pitch, x_here, body) if body > 0 else np.float32(0)
                            if body < cols:
                                p += tail(here + r * pitch, x[t], body, cols)
                            y[t, row + r] = y[t, row + r] + p if finish == ADD else p
                        u += 1
                row += rows_here

    @register_jitable(fastmath=IN_ORDER)
    def many_tokens(
        lane: Lane, y: np.ndarray, at: int, first: int, last: int, x: np.ndarray, finish: int
    ) -> None:
        """y [T, rows] <- rows [first, last) of the matrix at `at`, for all tokens x [T, cols], in tiles."""
        tokens, cols = x.shape[0], x.shape[1]
        pitch, body = cols * size, cols - cols % simd.STEP
        out = matrix(address_of(lane.room), tokens, TILE)
        for row in range(first, last, TILE):
            rows_here, here = min(TILE, last - row), at + row * pitch
            if body == 0:
                for t in range(tokens):
                    for r in range(TILE):
                        out[t, r] = np.float32(0)
            for t in range(0, tokens if body > 0 else 0, TILE):
                x_at, out_at = address_of(x) + t * cols * 4, address_of(out) + t * TILE * 4
                if rows_here == TILE and t + TILE <= tokens:
                    tile(here, pitch, x_at, cols * 4, body, out_at, TILE * 4, 0, 0)
                else:
                    for u in range(min(TILE, tokens - t)):
                        x_here, out_here = x_at + u * cols * 4, out_at + u * TILE * 4
                        if rows_here == TILE:
                            strip(here, pitch, x_here, 0, body, out_here, 0, 0, 0)
                        else:
                            for r in range(rows_here):
                                single(here + r * pitch, 0, x_here, 0, body, out_here + 4 * r, 0, 0, 0)
            for t in range(tokens):
                for r in range(rows_here):
                    p = out[t, r] + (
                        tail(here + r * pitch, x[t], body, cols) if body < cols else np.float32(0)
                    )
                    y[t, row + r] = y[t, row + r] + p if finish == ADD else p

    @overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
    def matmul_float(lane: Any, slot: Any, y: Any, W: Any, layer: Any, x: Any, finish: Any) -> Any:
        if not _is(W, rows):
            return None

        def implementation(
            lane: Lane, slot: int, y: np.ndarray, W: Any, layer: int, x: np.ndarray, finish: int
        ) -> None:
            at, tokens = W.at[layer], x.shape[0]
            # small matrices too give every lane tickets; just one if each ticket arranges many tokens' inputs
            most = min(TICKET_BYTES, W.rows * W.cols * size // (lane.lanes if tokens > 1 else 4 * lane.lanes))
            block = max(TILE, most // (W.cols * size) // TILE * TILE)
            tickets = (W.rows + block - 1) // block
            ticket, fresh = take(lane, slot, tickets, -1), True
            stop = min(W.rows, tickets * (lane.number + 1) // lane.lanes * block)
            while ticket < tickets:
                first, last = ticket * block, min((ticket + 1) * block, W.rows)
                if tokens <= ALIKE or W.rows <= FEW_ROWS:
                    few_rows(lane, y, at, first, last, stop, x, fresh, finish)
                else:
                    many_tokens(lane, y, at, first, last, x, finish)
                activate(y, first, last, finish)
                ticket, fresh = take(lane, slot, tickets, ticket), False

        return implementation

    @overload(read_row, strict=False)
    def read_row_float(out: Any, W: Any, layer: Any, row: Any) -> Any:
        if not _is(W, rows):
            return None

        def implementation(out: np.ndarray, W: Any, layer: int, row: int) -> None:
            w = view(W.at[layer] + row * W.cols * size, W.cols)
            for c in range(W.cols):
                out[c] = number(w[c])

        return implementation

    wide = _EXPAND_STRIPS * simd.LANES
    spread_many, spread_one = (
        expand_tile(alike, size, _EXPAND_STRIPS, tokens, paired) for tokens in (EXPAND_TOKENS, 1)
    )

    @overload(expand, jit_options={"fastmath": FASTMATH}, strict=False)
    def expand_float(out: Any, W: Any, layer: Any, head: Any, hidden: Any) -> Any:
        if not _is(W, heads):
            return None

        def implementation(out: np.ndarray, W: Any, layer: int, head: int, hidden: np.ndarray) -> None:
            tokens, rank, n = hidden.shape[0], hidden.shape[1], out.shape[1]
            at, pitch = W.at[layer] + head * W.pitch, n * size
            whole = n - n % wide
            for j in range(0, whole, wide):
                t = 0
                while t < tokens:
                    here, there = (
                        address_of(hidden) + t * hidden.strides[0],
                        address_of(out) + t * out.strides[0] + 4 * j,
                    )
                    if t + EXPAND_TOKENS <= tokens:
                        spread_many(
                            at + j * size, pitch, rank, here, hidden.strides[0], there, out.strides[0]
                        )
                        t += EXPAND_TOKENS
                    else:
                        spread_one(at + j * size, pitch, rank, here, 0, there, 0)
                        t += 1
            w = view(at, rank * n)
            for t in range(tokens if whole < n else 0):
                for j in range(whole, n):
                    total = np.float32(0)
                    for r in range(rank):
                        total += hidden[t, r] * number(w[r * n + j])
                    out[t, j] = total

        return implementation


_register(F32Rows, F32Heads, simd.load_f32, 4, floats, f32_of_f32, paired=False)
_register(BF16Rows, BF16Heads, simd.load_bf16, 2, halves, f32_of_bf16, paired=True)
_register(F16Rows, F16Heads, simd.load_f16, 2, halves, f32_of_f16, paired=False)
