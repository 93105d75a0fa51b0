"""bfloat16: the upper half of a float32; row-major, 2 bytes each. Lossless for checkpoints in BF16."""

from functools import partial

import numpy as np

from rwkv_engine.formats.rows import aligned, converted, packed, packed_heads, row_major
from rwkv_engine.kernels.matmul_float import BF16Heads, BF16Rows, room_for_floats
from rwkv_engine.numbers.bf16 import bf16_to_float32, float32_to_bf16
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor


def _stored(tensor: Tensor) -> np.ndarray:
    if tensor.dtype == "BF16":
        return aligned(tensor.bits())
    return converted(tensor, np.uint16, float32_to_bf16)


def _to_float32(stored: np.ndarray, rows: int, cols: int) -> np.ndarray:
    return bf16_to_float32(stored)


FORMAT = Format(
    name="bf16",
    tag="BF16",
    quantized=False,
    element=np.dtype(np.uint16),
    shape_of=row_major,
    stored=_stored,
    to_float32=_to_float32,
    pack=partial(packed, BF16Rows, _stored),
    room=room_for_floats,
    pack_heads=partial(packed_heads, BF16Heads, _stored),
)
