"""float16: IEEE half precision; row-major, 2 bytes each. Lossless for checkpoints in F16."""

from functools import partial

import numpy as np

from rwkv_engine.errors import CheckpointError, shown
from rwkv_engine.formats.rows import aligned, converted, packed, packed_heads, row_major
from rwkv_engine.kernels.matmul_float import F16Heads, F16Rows, room_for_floats
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor


def _stored(tensor: Tensor) -> np.ndarray:
    if tensor.dtype == "F16":
        return aligned(tensor.bits()).view(np.uint16)
    return converted(tensor, np.float16, partial(_halved, tensor.name)).view(np.uint16)


def _halved(name: str, rows: np.ndarray) -> np.ndarray:
    """float32 to float16. Raises CheckpointError for numbers that this has no place for."""
    with np.errstate(over="ignore"):
        halves = rows.astype(np.float16)
    if not np.isfinite(halves).all():
        largest = float(np.abs(rows).max())
        raise CheckpointError(
            f"tensor {shown(name)}: got numbers up to {largest:.5g}, F16 holds none over 65,504; choose weights bf16 or f32",
            name=name,
        )
    return halves


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
