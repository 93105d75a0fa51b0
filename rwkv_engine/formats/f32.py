"""float32: the elements unchanged; row-major, 4 bytes each. Lossless."""

from functools import partial

import numpy as np

from rwkv_engine.formats.rows import aligned, converted, packed, packed_heads, row_major
from rwkv_engine.kernels.matmul_float import F32Heads, F32Rows, room_for_floats
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor


def _stored(tensor: Tensor) -> np.ndarray:
    if tensor.dtype == "F32":
        return aligned(tensor.bits())
    return converted(tensor, np.float32, lambda rows: rows)


def _to_float32(stored: np.ndarray, rows: int, cols: int) -> np.ndarray:
    return stored


FORMAT = Format(
    name="f32",
    tag="F32",
    quantized=False,
    element=np.dtype(np.float32),
    shape_of=row_major,
    stored=_stored,
    to_float32=_to_float32,
    pack=partial(packed, F32Rows, _stored),
    room=room_for_floats,
    pack_heads=partial(packed_heads, F32Heads, _stored),
)
