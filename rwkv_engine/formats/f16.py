"""float16: IEEE half precision; row-major, 2 bytes each. Lossless for checkpoints in F16."""

from functools import partial

import numpy as np

from rwkv_engine.formats.rows import aligned, converted, packed, packed_heads, row_major
from rwkv_engine.kernels.matmul_float import F16Heads, F16Rows, room_for_floats
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor


def _stored(tensor: Tensor) -> np.ndarray:
    if tensor.dtype == "F16":
        return aligned(tensor.bits()).view(np.uint16)
    return converted(tensor, np.float16, lambda rows: rows.astype(np.float16)).view(np.uint16)


def _to_float32(stored: np.ndarray, rows: int, cols: int) -> np.ndarray:
    return stored.view(np.float16).astype(np.float32)


FORMAT = Format(
    name="f16",
    tag="F16",
    quantized=False,
    element=np.dtype(np.uint16),
    shape_of=row_major,
    stored=_stored,
    to_float32=_to_float32,
    pack=partial(packed, F16Rows, _stored),
    room=room_for_floats,
    pack_heads=partial(packed_heads, F16Heads, _stored),
)
