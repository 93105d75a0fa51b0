"""Matrix products over 4-bit weights: `matmul_int8`'s, with groups of 16 inputs and scales of rows.

Twin: `int4_layout.unpacked`.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from rwkv_engine.kernels._jit import FASTMATH
from rwkv_engine.kernels.int4_tiles import INT4, TILES
from rwkv_engine.kernels.matmul import matmul
from rwkv_engine.kernels.matmul_int8 import LEVEL, product, room_in


class Int4Rows(NamedTuple):
    """4-bit matrices of one kind, a layer each.

    at     [L] addresses of strips, laid out as int4_layout says.
    rows, cols  as the matrices are seen from outside.
    """

    at: np.ndarray
    rows: int
    cols: int


room_for = room_in(TILES[LEVEL], INT4)
_product = product(TILES[LEVEL], INT4)


@overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
def matmul_int4(lane, slot, y, W, layer, x, finish):
    """`kernels.matmul.matmul` for Int4Rows."""
    return _product if isinstance(W, types.NamedTuple) and W.instance_class is Int4Rows else None
