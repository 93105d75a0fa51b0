"""Reads memory and does nothing else, with the reads and lanes of a matrix product: the limit of decoding."""

import numpy as np

from rwkv_engine.kernels import simd
from rwkv_engine.kernels._jit import program
from rwkv_engine.kernels.lanes import Lane, share
from rwkv_engine.kernels.matmul_float import SUMS
from rwkv_engine.kernels.pointers import address_of

#: as many accumulators as for rows of floats: with fewer, fewer reads overlap, and the result is too low
_sum = simd.dot_row(simd.in_order(simd.load_f32, 4), 4, SUMS)
#: bytes read by one call of the vector loop, about one row of a weight matrix
PIECE = 8192


@program
def read_all(lane: Lane, data: np.ndarray, ones: np.ndarray) -> None:
    """Read this lane's share of data [n] float32 in pieces of PIECE bytes, without the rest.

    ones  [PIECE / 4] ones.
    """
    pieces = data.shape[0] * 4 // PIECE
    start, stop = share(lane, pieces)
    for piece in range(start, stop):
        at = address_of(data) + piece * PIECE
        lane.room[0] += _sum(at, address_of(ones), PIECE // 4)
