"""float16: IEEE half precision. Row-major, 2 bytes each; meant for checkpoints in F16, which lose nothing."""

from collections.abc import Sequence

import numpy as np

from rwkv_engine.formats.rows import aligned, converted, packed, packed_heads, view_matrix
from rwkv_engine.kernels.matmul_float import F16Heads, F16Rows
from rwkv_engine.numbers.tensor import Tensor

NAME = "f16"


def _stored(tensor: Tensor) -> np.ndarray:
    if tensor.dtype == "F16":
        return aligned(tensor.bits()).view(np.uint16)
    return converted(tensor, np.float16, lambda rows: rows.astype(np.float16)).view(np.uint16)


def pack(tensors: Sequence[Tensor]) -> tuple[F16Rows, list[np.ndarray]]:
    """The matrices [rows, cols] of a layer each, with the arrays that hold them (views of the file where possible)."""
    return packed(F16Rows, _stored, tensors)


def pack_heads(
    layers: Sequence[Sequence[Tensor | None]], heads: int
) -> tuple[list[F16Heads], list[np.ndarray]]:
    """The second halves [R, C] of low-rank pairs, cut by heads for `kernels.matmul.expand`; see `rows.packed_heads`."""
    return packed_heads(F16Heads, _stored, layers, heads)


def unpack(rows: F16Rows, layer: int) -> np.ndarray:
    """One layer's matrix [rows, cols] as float32."""
    return view_matrix(rows, layer, np.float16).astype(np.float32)
