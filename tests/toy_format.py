"""A weight format of the tests' own, as somebody would add one: its record, its type and its kernels, in
plain loops.

A row is a float32 scale and an integer of 8 bits for each number, padded to a multiple of 4 bytes.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from rwkv_engine.formats.rows import aligned, packed
from rwkv_engine.kernels.lanes import take
from rwkv_engine.kernels.matmul import ADD, activate, matmul
from rwkv_engine.kernels.pointers import bytes_at, floats
from rwkv_engine.numbers.format import Format


class ToyRows(NamedTuple):
    """Toy matrices of one kind, a layer each."""

    at: np.ndarray
    rows: int
    cols: int


def shape_of(rows, cols):
    return rows, 4 + -(-cols // 4) * 4


def stored(tensor):
    if tensor.dtype == "TOY":
        return aligned(tensor.bits())
    rows, cols = tensor.shape
    values = tensor.rows()(0, rows)
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    out = np.zeros(shape_of(rows, cols), np.uint8)
    out[:, :4] = scale.view(np.uint8)
    out[:, 4 : 4 + cols] = np.rint(values / np.maximum(scale, 1e-30)).astype(np.int8).view(np.uint8)
    return out


def to_float32(array, rows, cols):
    scale = np.ascontiguousarray(array[:, :4]).view(np.float32)
    return scale * array[:, 4 : 4 + cols].view(np.int8)


@overload(matmul, strict=False)
def matmul_toy(lane, slot, y, W, layer, x, finish):
    """One row behind each ticket; its numbers lie in `lane.room` while they are used."""
    if not (isinstance(W, types.NamedTuple) and W.instance_class is ToyRows):
        return None

    def implementation(lane, slot, y, W, layer, x, finish):
        pitch = 4 + (W.cols + 3) // 4 * 4
        row = take(lane, slot, W.rows, -1)
        while row < W.rows:
            at = W.at[layer] + row * pitch
            scale, numbers = floats(at, 1)[0], bytes_at(at + 4, W.cols)
            for c in range(W.cols):
                lane.room[c] = scale * np.float32(numbers[c])
            for t in range(x.shape[0]):
                total = np.float32(0)
                for c in range(W.cols):
                    total += lane.room[c] * x[t, c]
                y[t, row] = y[t, row] + total if finish == ADD else total
            activate(y, row, row + 1, finish)
            row = take(lane, slot, W.rows, row)

    return implementation


FORMAT = Format(
    name="toy",
    tag="TOY",
    quantized=True,
    element=np.dtype(np.uint8),
    shape_of=shape_of,
    stored=stored,
    to_float32=to_float32,
    pack=partial(packed, ToyRows, stored),
    room=lambda cols, tokens: cols,
)
