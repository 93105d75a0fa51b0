"""bfloat16: the upper half of a float32. Row-major, 2 bytes each; a checkpoint in BF16 loses nothing, others 16 bits of mantissa."""

from collections.abc import Sequence

import numpy as np

from rwkv_engine.formats.rows import aligned, converted, packed, packed_heads, view_matrix
from rwkv_engine.kernels.matmul_float import BF16Heads, BF16Rows
from rwkv_engine.numbers.bf16 import bf16_to_float32, float32_to_bf16
from rwkv_engine.numbers.tensor import Tensor

NAME = "bf16"


def _stored(tensor: Tensor) -> np.ndarray:
    if tensor.dtype == "BF16":
        return aligned(tensor.bits())
    return converted(tensor, np.uint16, float32_to_bf16)


def pack(tensors: Sequence[Tensor]) -> tuple[BF16Rows, list[np.ndarray]]:
    """The matrices [rows, cols] of a layer each, with the arrays that hold them (views of the file where possible)."""
    return packed(BF16Rows, _stored, tensors)


def pack_heads(
    layers: Sequence[Sequence[Tensor | None]], heads: int
) -> tuple[list[BF16Heads], list[np.ndarray]]:
    """The second halves [R, C] of low-rank pairs, cut by heads for `kernels.matmul.expand`; see `rows.packed_heads`."""
    return packed_heads(BF16Heads, _stored, layers, heads)


def unpack(rows: BF16Rows, layer: int) -> np.ndarray:
    """One layer's matrix [rows, cols] as float32."""
    return bf16_to_float32(view_matrix(rows, layer, np.uint16))
