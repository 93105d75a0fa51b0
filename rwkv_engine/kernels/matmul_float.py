"""Matrix products over float weights: F32, BF16 and F16 rows, read where they lie.

Decode (one token) takes a row at a time, in the order of memory. A chunk of tokens is computed in tiles of rows x tokens, so
a weight that was read is used for every token while it is in the first-level cache.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from rwkv_engine.cpu import wide_vectors
from rwkv_engine.kernels import simd
from rwkv_engine.kernels._jit import FASTMATH, kernel
from rwkv_engine.kernels.lanes import take
from rwkv_engine.kernels.matmul import ADD, expand, finished, matmul, read_row
from rwkv_engine.kernels.pointers import address_of, float32_of_bits, floats, halves


class F32Rows(NamedTuple):
    """float32 matrices of one kind, a layer each: row-major [rows, cols] at at[layer] (addresses, int64 [L])."""

    at: np.ndarray
    rows: int
    cols: int


class BF16Rows(NamedTuple):
    """As F32Rows, of BF16 bits."""

    at: np.ndarray
    rows: int
    cols: int


class F16Rows(NamedTuple):
    """As F32Rows, of F16 bits."""

    at: np.ndarray
    rows: int
    cols: int


#: bytes of weights behind one ticket: 32 KiB costs a tenth of the speed of two lanes (each reads ahead into the other's part)
TICKET_BYTES = 131072
#: rows x tokens of a tile: 16 accumulators of 512 bits where there are 32 registers, else 4 of 16 floats
TILE = 4 if wide_vectors() else 2


@kernel
def f32_of_f32(x):
    """A stored float32."""
    return x


@kernel
def f32_of_bf16(bits):
    """BF16 bits (uint16) to float32."""
    return float32_of_bits(np.uint32(bits) << np.uint32(16))


@kernel
def f32_of_f16(bits):
    """F16 bits (uint16) to float32; exact for finite numbers."""
    size = float32_of_bits(np.uint32(bits & 0x7FFF) << np.uint32(13)) * np.float32(2.0**112)
    return -size if bits & 0x8000 else size


def _is(W: Any, rows: type) -> bool:
    return isinstance(W, types.NamedTuple) and W.instance_class is rows


def _register(rows: type, load: Callable[..., Any], size: int, view: Any, number: Any) -> None:
    """Overload `matmul`, `read_row` and `expand` for one float format.

    load, size as in simd.dot_tile; view  typed view of an address; number  one stored element to float32.
    """
    one, tile = simd.dot_tile(load, size, 1, 1), simd.dot_tile(load, size, TILE, TILE)
    strip = simd.dot_tile(load, size, TILE, 1)

    @register_jitable(fastmath=FASTMATH)
    def tail(at, x, start, cols):
        """The part of a row's dot product that the vector loop leaves."""
        w = view(at, cols)
        total = np.float32(0)
        for k in range(start, cols):
            total += number(w[k]) * x[k]
        return total

    @register_jitable
    def products(out, at, cols, rows_here, x):
        """out [T, TILE] <- x [T, cols] times up to TILE rows that follow one another from address `at`."""
        tokens, pitch = x.shape[0], cols * size
        body = cols - cols % simd.STEP
        o, i = address_of(out), address_of(x)
        for t in range(0, tokens, TILE):
            if body == 0:
                out[t : t + TILE] = np.float32(0)
            elif rows_here == TILE and t + TILE <= tokens:
                tile(at, pitch, i + t * cols * 4, cols * 4, body, o + t * TILE * 4, TILE * 4)
            else:
                for u in range(t, min(t + TILE, tokens)):
                    if rows_here == TILE and tokens > 1:
                        strip(at, pitch, i + u * cols * 4, 0, body, o + u * TILE * 4, 0)
                    else:
                        for r in range(rows_here):
                            one(at + r * pitch, 0, i + u * cols * 4, 0, body, o + (u * TILE + r) * 4, 0)
        if body < cols:
            for t in range(tokens):
                for r in range(rows_here):
                    out[t, r] += tail(at + r * pitch, x[t], body, cols)

    @overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
    def matmul_float(lane, slot, y, W, layer, x, finish):
        if not _is(W, rows):
            return None

        def implementation(lane, slot, y, W, layer, x, finish):
            tokens, cols = x.shape[0], W.cols
            block = max(TILE, TICKET_BYTES // (cols * size) // TILE * TILE)
            out = lane.room[: tokens * TILE].reshape(tokens, TILE)
            ticket = take(lane, slot, -1)
            while ticket * block < W.rows:
                for row in range(ticket * block, min((ticket + 1) * block, W.rows), TILE):
                    here = min(TILE, W.rows - row)
                    products(out, W.at[layer] + row * cols * size, cols, here, x)
                    for t in range(tokens):
                        for r in range(here):
                            if finish == ADD:
                                y[t, row + r] += out[t, r]
                            else:
                                y[t, row + r] = finished(out[t, r], finish)
                ticket = take(lane, slot, ticket)

        return implementation

    @overload(read_row, strict=False)
    def read_row_float(out, W, layer, row):
        if not _is(W, rows):
            return None

        def implementation(out, W, layer, row):
            w = view(W.at[layer] + row * W.cols * size, W.cols)
            for c in range(W.cols):
                out[c] = number(w[c])

        return implementation

    @overload(expand, jit_options={"fastmath": FASTMATH}, strict=False)
    def expand_float(out, W, layer, head, hidden):
        if not _is(W, rows):
            return None

        def implementation(out, W, layer, head, hidden):
            rank, n = hidden.shape[0], out.shape[0]
            w = view(W.at[layer] + head * rank * n * size, rank * n)
            for j in range(n):
                out[j] = np.float32(0)
            for r in range(rank):
                h = hidden[r]
                for j in range(n):
                    out[j] += h * number(w[r * n + j])

        return implementation


_register(F32Rows, simd.load_f32, 4, floats, f32_of_f32)
_register(BF16Rows, simd.load_bf16, 2, halves, f32_of_bf16)
_register(F16Rows, simd.load_f16, 2, halves, f32_of_f16)
