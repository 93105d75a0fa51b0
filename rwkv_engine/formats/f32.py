"""float32: the elements as they are. Row-major, 4 bytes each; nothing is lost."""

from collections.abc import Sequence

import numpy as np

from rwkv_engine.formats.rows import aligned, converted, packed, packed_heads, view_matrix
from rwkv_engine.kernels.matmul_float import F32Heads, F32Rows
from rwkv_engine.numbers.tensor import Tensor

NAME = "f32"


def _stored(tensor: Tensor) -> np.ndarray:
    if tensor.dtype == "F32":
        return aligned(tensor.bits())
    return converted(tensor, np.float32, lambda rows: rows)


def pack(tensors: Sequence[Tensor]) -> tuple[F32Rows, list[np.ndarray]]:
    """The matrices [rows, cols] of a layer each, with the arrays that hold them (views of the file where possible)."""
    return packed(F32Rows, _stored, tensors)


def pack_heads(
    layers: Sequence[Sequence[Tensor | None]], heads: int
) -> tuple[list[F32Heads], list[np.ndarray]]:
    """The second halves [R, C] of low-rank pairs, cut by heads for `kernels.matmul.expand`; see `rows.packed_heads`."""
    return packed_heads(F32Heads, _stored, layers, heads)


def unpack(rows: F32Rows, layer: int) -> np.ndarray:
    """One layer's matrix [rows, cols] as float32."""
    return view_matrix(rows, layer, np.float32)
