"""INT8: integers from -127 to 127, a scale for each row and group of 64 inputs, in strips of 16 rows.

Byte layout of a matrix [rows, cols], padded with zeros to a multiple of 16 rows and of 64 cols: strips of 16 rows; in a strip, groups
of 64 inputs; in a group 1,024 bytes of integers [16 quads of inputs][16 rows][4 inputs] and 64 bytes of scales [16 rows] float32.
weight = integer * scale, scale = largest of the row's group / 127; 8.5 bits a weight. Low-rank pairs and the embedding keep the
checkpoint's own precision.
"""

from collections.abc import Sequence

import numpy as np

from rwkv_engine.formats.rows import view
from rwkv_engine.kernels.matmul_int8 import GROUP, GROUP_BYTES, STRIP, Int8Rows
from rwkv_engine.tensor import Tensor

NAME = "int8"


def quantized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(integers [..., 64] int8, scales [...] float32) of float32 values [..., 64]: rounded to nearest, at most half a scale off."""
    scale = np.abs(values).max(axis=-1) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    return np.rint(values * inverse[..., None]).clip(-127, 127).astype(np.int8), scale


def strips(values: np.ndarray) -> np.ndarray:
    """[rows, cols] float32 -> [strips, groups, GROUP_BYTES] uint8, the layout above."""
    padded = np.pad(values, ((0, -values.shape[0] % STRIP), (0, -values.shape[1] % GROUP)))
    integers, scale = quantized(padded.reshape(len(padded) // STRIP, STRIP, -1, GROUP))
    count, _, groups, _ = integers.shape
    out = np.empty((count, groups, GROUP_BYTES), np.uint8)
    quads = integers.reshape(count, STRIP, groups, GROUP // 4, 4).transpose(0, 2, 3, 1, 4)
    out[:, :, : STRIP * GROUP] = quads.reshape(count, groups, -1).view(np.uint8)
    out[:, :, STRIP * GROUP :] = np.ascontiguousarray(scale.transpose(0, 2, 1)).view(np.uint8)
    return out


def pack(tensors: Sequence[Tensor]) -> tuple[Int8Rows, list[np.ndarray]]:
    """The matrices [rows, cols] of a layer each, quantized, with the arrays that hold them; one layer at a time is in float32."""
    owners = [strips(tensor.float32()) for tensor in tensors]
    at = np.array([array.ctypes.data for array in owners], np.int64)
    rows, cols = tensors[0].shape
    return Int8Rows(at, rows, cols), owners


def unpack(rows: Int8Rows, layer: int) -> np.ndarray:
    """One layer's matrix [rows, cols] as float32."""
    count, groups = -(-rows.rows // STRIP), -(-rows.cols // GROUP)
    stored = view(rows.at[layer], count * groups * GROUP_BYTES, np.uint8).reshape(count, groups, GROUP_BYTES)
    quads = stored[:, :, : STRIP * GROUP].view(np.int8).reshape(count, groups, GROUP // 4, STRIP, 4)
    scale = np.ascontiguousarray(stored[:, :, STRIP * GROUP :]).view(np.float32)
    values = quads.transpose(0, 3, 1, 2, 4).reshape(count, STRIP, groups, GROUP) * scale.transpose(0, 2, 1)[..., None]
    return values.reshape(count * STRIP, groups * GROUP)[: rows.rows, : rows.cols]
