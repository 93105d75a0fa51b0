"""INT8: a BF16 scale for every 32 integers of a row, 8.5 bits a weight; laid out as `int8_layout` says.

Low-rank pairs and the embedding keep the checkpoint's own precision.
"""

from collections.abc import Sequence

import numpy as np

from rwkv_engine.formats.rows import aligned, view
from rwkv_engine.kernels.matmul_int8 import Int8Rows
from rwkv_engine.numbers import int8_layout
from rwkv_engine.numbers.tensor import Tensor

NAME = "int8"


def packed_matrix(tensor: Tensor) -> np.ndarray:
    """A matrix as `int8_layout` says: as it is stored, if it is packed, else quantized now."""
    if tensor.dtype == "INT8":
        return aligned(tensor.bits())
    rows, cols = tensor.shape
    return int8_layout.packed(rows, cols, tensor.rows())


def pack(tensors: Sequence[Tensor]) -> tuple[Int8Rows, list[np.ndarray]]:
    """The matrices [rows, cols] of a layer each, with the arrays that hold them: views of a packed file where they can be."""
    owners = [packed_matrix(tensor) for tensor in tensors]
    at = np.array([array.ctypes.data for array in owners], np.int64)
    rows, cols = tensors[0].shape
    return Int8Rows(at, rows, cols), owners


def unpack(rows: Int8Rows, layer: int) -> np.ndarray:
    """One layer's matrix [rows, cols] as float32."""
    shape = int8_layout.shape_of(rows.rows, rows.cols)
    return int8_layout.unpacked(
        view(rows.at[layer], shape[0] * shape[1] * shape[2], np.uint8).reshape(shape), rows.rows, rows.cols
    )
