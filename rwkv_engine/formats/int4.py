"""int4: 4-bit codes of a table, an 8-bit scale for every 16 of a row, 4.5 bits a weight; laid out as
`int4_layout` says.
"""

from functools import partial

import numpy as np

from rwkv_engine.formats.rows import aligned, packed
from rwkv_engine.kernels.int4_search import quantize
from rwkv_engine.kernels.matmul_int4 import Int4Rows, room_for
from rwkv_engine.numbers import int4_layout
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.int4_layout import GROUP, GROUPS, STRIP
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system import cpu
from rwkv_engine.system.threads import each

#: weights that a thread quantizes at once: little memory beside the result
_PIECE = 1 << 19
#: the type of a GGUF whose codes are those of the table
_SAME_TABLE = "IQ4_NL"


def _quantized(values: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Some rows of weights as [strips, bytes of a strip]; importance [cols, padded] f32: by which a column's
    errors count.
    """
    values = int4_layout.padded(values)
    scale = int4_layout.row_scales(values)
    lost = np.isnan(scale)
    values[lost] = 0
    strips, cols = len(values) // STRIP, values.shape[1]
    turned = np.ascontiguousarray(values.reshape(strips, STRIP, cols).transpose(0, 2, 1))
    codes = np.empty((strips, cols, STRIP), np.uint8)
    scales = np.empty((strips, cols // GROUP, STRIP), np.int8)
    quantize(turned, importance, np.where(lost, np.float32(0), scale).reshape(strips, STRIP), codes, scales)
    return int4_layout.arranged(
        codes.transpose(0, 2, 1).reshape(values.shape),
        scales.transpose(0, 2, 1).reshape(len(values), -1),
        scale,
    )


def _kept(integers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The same of `Blocks.integers` that are values of the table."""
    codes, scales, row = int4_layout.kept(integers, scale)
    whole = np.zeros(-(-len(row) // STRIP) * STRIP, np.float32)
    whole[: len(row)] = row
    return int4_layout.arranged(int4_layout.padded(codes), int4_layout.padded(scales, GROUPS), whole)


def _stored(tensor: Tensor) -> np.ndarray:
    """A matrix as `int4_layout` says: as it is stored, if it is packed, else quantized now, by all cores; of a
    GGUF's codes of the same table only the scales are rounded.
    """
    if tensor.dtype == "INT4":
        return aligned(tensor.bits())
    rows, cols = tensor.shape
    read, out = tensor.rows(), np.empty(int4_layout.shape_of(rows, cols), np.uint8)
    importance = np.ones(-(-cols // int4_layout.BLOCK) * int4_layout.BLOCK, np.float32)
    whole = tensor.integers() if tensor.kind is not None and tensor.kind.name == _SAME_TABLE else None
    step = max(1, _PIECE // (STRIP * len(importance)))

    def make(first: int) -> None:
        span = first * STRIP, min((first + step) * STRIP, rows)
        given = whole(*span) if whole else None
        out[first : first + step] = _kept(*given) if given else _quantized(read(*span), importance)

    each(make, range(0, len(out), step), cpu.lanes())
    return out


FORMAT = Format(
    name="int4",
    tag="INT4",
    quantized=True,
    element=np.dtype(np.uint8),
    shape_of=int4_layout.shape_of,
    stored=_stored,
    to_float32=int4_layout.unpacked,
    pack=partial(packed, Int4Rows, _stored),
    room=room_for,
)
