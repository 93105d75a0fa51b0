"""Matrix products over weights of 4 and 5 bits: `matmul_int8`'s, with groups of 16 inputs and scales of rows.

Twin: `code_layout.Codes.unpacked`.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from rwkv_engine.kernels._jit import FASTMATH
from rwkv_engine.kernels.code_tiles import layout_of, tiles_of
from rwkv_engine.kernels.matmul import matmul
from rwkv_engine.kernels.matmul_int8 import LEVEL, product, room_in
from rwkv_engine.numbers.code_layout import INT4, INT5


class Int4Rows(NamedTuple):
    """4-bit matrices of one kind, a layer each.

    at     [L] addresses of strips, laid out as code_layout says.
    rows, cols  as the matrices are seen from outside.
    """

    at: np.ndarray
    rows: int
    cols: int


class Int5Rows(NamedTuple):
    """5-bit matrices, as Int4Rows."""

    at: np.ndarray
    rows: int
    cols: int


_INT4, _INT5 = layout_of(INT4), layout_of(INT5)
_TILES_INT4, _TILES_INT5 = tiles_of(_INT4)[LEVEL], tiles_of(_INT5)[LEVEL]
room_int4, room_int5 = room_in(_TILES_INT4, _INT4), room_in(_TILES_INT5, _INT5)
_product_int4, _product_int5 = product(_TILES_INT4, _INT4), product(_TILES_INT5, _INT5)


@overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
def matmul_codes(lane, slot, y, W, layer, x, finish):
    """`kernels.matmul.matmul` for Int4Rows and Int5Rows."""
    kind = W.instance_class if isinstance(W, types.NamedTuple) else None
    return _product_int4 if kind is Int4Rows else _product_int5 if kind is Int5Rows else None
