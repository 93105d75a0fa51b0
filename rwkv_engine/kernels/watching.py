"""Matrices whose inputs are written down: what a matrix is multiplied by says which of its errors matter."""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from rwkv_engine.kernels._jit import FASTMATH
from rwkv_engine.kernels.matmul import matmul


class Watched(NamedTuple):
    """Matrices of one kind, a layer each.

    inner  the matrices, of any format.       rows, cols  theirs.
    seen   [layers, T, cols] float32: the inputs of the last pass, of layers from `first` on.
    """

    inner: Any
    seen: np.ndarray
    first: int
    rows: int
    cols: int


@overload(matmul, jit_options={"fastmath": FASTMATH}, strict=False)
def matmul_watched(lane, slot, y, W, layer, x, finish):
    """`kernels.matmul.matmul` for Watched: that of the inner matrices."""
    if not (isinstance(W, types.NamedTuple) and W.instance_class is Watched):
        return None

    def implementation(lane, slot, y, W, layer, x, finish):
        place = layer - W.first
        if lane.number == 0 and place >= 0 and place < W.seen.shape[0]:
            for t in range(x.shape[0]):
                for c in range(W.cols):
                    W.seen[place, t, c] = x[t, c]
        matmul(lane, slot, y, W.inner, layer, x, finish)

    return implementation
