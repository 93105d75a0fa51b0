"""Reading memory and doing nothing with it: the bound of decoding, measured with the same reads and lanes as
the matrices.
"""

import numpy as np

from rwkv_engine.kernels import simd
from rwkv_engine.kernels._jit import program
from rwkv_engine.kernels.lanes import Lane, share
from rwkv_engine.kernels.matmul_float import SUMS
from rwkv_engine.kernels.pointers import address_of

#: as many sums as rows of floats have: with fewer, fewer reads are under way at once, and a core shows less
#: than its memory gives
_sum = simd.dot_row(simd.in_order(simd.load_f32, 4), 4, SUMS)
#: bytes read by one call of the vector loop; a weight matrix's rows are of this order
PIECE = 8192


@program
def read_all(lane: Lane, data: np.ndarray, ones: np.ndarray) -> None:
    """Read this lane's share of data [n] float32, piece by piece (PIECE bytes, the rest is left out); ones
    [PIECE / 4] are 1.
    """
    pieces = data.shape[0] * 4 // PIECE
    start, stop = share(lane, pieces)
    for piece in range(start, stop):
        at = address_of(data) + piece * PIECE
        lane.room[0] += _sum(at, address_of(ones), PIECE // 4)
