"""INT8: a BF16 scale for every 32 integers of a row, 8.5 bits per weight; layout in `int8_layout`."""

from functools import partial

import numpy as np

from rwkv_engine.formats.rows import aligned, packed
from rwkv_engine.kernels.matmul_int8 import Int8Rows, room_for
from rwkv_engine.kernels.matmul_units import Int8Units
from rwkv_engine.kernels.matmul_units import room_for as room_by_units
from rwkv_engine.numbers import int8_layout, unit_layout
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor


def _stored(tensor: Tensor) -> np.ndarray:
    """A matrix in the layout of `int8_layout`: unchanged if it is packed, else quantized now; of a GGUF's
    whole numbers only the scales are rounded.
    """
    if tensor.dtype == "INT8":
        return aligned(tensor.bits())
    rows, cols = tensor.shape
    return int8_layout.packed(rows, cols, tensor.rows(), tensor.integers())


def _stored_by_units(tensor: Tensor) -> np.ndarray:
    """A matrix in the layout of `unit_layout`: unchanged if it is packed so."""
    if tensor.dtype == "INT8-UNITS":
        return aligned(tensor.bits())
    return unit_layout.by_units(_stored(tensor))


def _float32_by_units(stored: np.ndarray, rows: int, cols: int) -> np.ndarray:
    strips = unit_layout.by_strips(stored)[: int8_layout.shape_of(rows, cols)[0]]
    return int8_layout.unpacked(strips, rows, cols)


_BY_UNITS = Format(
    name="int8-units",
    tag="INT8-UNITS",
    quantized=True,
    element=np.dtype(np.uint8),
    shape_of=unit_layout.shape_of,
    stored=_stored_by_units,
    to_float32=_float32_by_units,
    pack=partial(packed, Int8Units, _stored_by_units),
    room=room_by_units,
)
FORMAT = Format(
    name="int8",
    tag="INT8",
    quantized=True,
    element=np.dtype(np.uint8),
    shape_of=int8_layout.shape_of,
    stored=_stored,
    to_float32=int8_layout.unpacked,
    pack=partial(packed, Int8Rows, _stored),
    room=room_for,
    by_units=_BY_UNITS,
)
