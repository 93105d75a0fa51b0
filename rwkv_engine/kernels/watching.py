"""Matrices of which the first layers' are packed and the last layer's are watched: what a matrix is multiplied by
says which of its errors matter.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from rwkv_engine.kernels._jit import FASTMATH
from rwkv_engine.kernels.lanes import barrier
from rwkv_engine.kernels.matmul import ADD, matmul


class Watched(NamedTuple):
    """Matrices of one kind, a layer each.

    coded, plain  those of the first `finished` layers, and of the others, each of any format.
    last          the layer that is watched.      rows, cols  the matrices'.
    inputs        [T, cols] float32: what the last layer's was multiplied by in the last pass.
    stream        [T, rows] float32: what the products were added to, before; where they are added.
    """

    coded: Any
    plain: Any
    finished: int
    last: int
    inputs: np.ndarray
    stream: np.ndarray
    rows: int
    cols: int


@overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
def matmul_watched(lane, slot, y, W, layer, x, finish):
    """`kernels.matmul.matmul` for Watched: that of the inner matrices."""
    if not (isinstance(W, types.NamedTuple) and W.instance_class is Watched):
        return None

    def implementation(lane, slot, y, W, layer, x, finish):
        if layer == W.last:
            if lane.number == 0:
                for t in range(x.shape[0]):
                    for c in range(W.cols):
                        W.inputs[t, c] = x[t, c]
            if finish == ADD:
                if lane.number == 0:
                    for t in range(x.shape[0]):
                        for r in range(W.rows):
                            W.stream[t, r] = y[t, r]
                barrier(lane)  # no lane adds before all is written down
        if layer < W.finished:
            matmul(lane, slot, y, W.coded, layer, x, finish)
        else:
            matmul(lane, slot, y, W.plain, layer - W.finished, x, finish)

    return implementation
