"""INT8: integers from -127 to 127, a BF16 scale for each row and group of 32 inputs, in strips of 16 rows; 8.5 bits a weight.

Byte layout of a matrix [rows, cols], padded with zeros to a multiple of 16 rows and of 64 cols: strips of 16 rows; in a strip, blocks
of 64 inputs; in a block 17 lines of 64 bytes. 16 lines of integers [16 quads of inputs][16 rows][4 inputs], then one of
scales [16 rows][2 groups of 32 inputs]. weight = integer * scale, scale = largest of the row's group / 127, rounded up to BF16.
"""

from collections.abc import Sequence

import numpy as np

from rwkv_engine.formats.rows import view
from rwkv_engine.kernels.int8_levels import BLOCK, BLOCK_BYTES, GROUP, GROUPS, LINE, STRIP
from rwkv_engine.kernels.matmul_int8 import Int8Rows
from rwkv_engine.tensor import Tensor, bf16_to_float32

NAME = "int8"


def shape_of(rows: int, cols: int) -> tuple[int, int, int]:
    """Shape of a packed matrix: [strips, blocks, BLOCK_BYTES]."""
    return -(-rows // STRIP), -(-cols // BLOCK), BLOCK_BYTES


def quantized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(integers [..., 32] int8, scales [...] as BF16 bits) of float32 values [..., 32]: rounded to nearest, at most half a scale off.

    A NaN or infinity makes the scale NaN, so that it is not lost.
    """
    largest = np.abs(values).max(axis=-1)
    bits = (largest / np.float32(127)).view(np.uint32)
    scale = ((bits + np.uint32(0xFFFF)) >> np.uint32(16)).astype(np.uint16)
    scale[~np.isfinite(largest)] = 0x7FC0
    wide = bf16_to_float32(scale)
    inverse = np.divide(np.float32(1), wide, out=np.zeros_like(wide), where=wide > 1e-37)
    if np.isnan(wide).any():
        values = np.where(np.isnan(wide)[..., None], np.float32(0), values)
    return np.rint(values * inverse[..., None]).astype(np.int8), scale


def packed(values: np.ndarray) -> np.ndarray:
    """[rows, cols] float32 -> [strips, blocks, BLOCK_BYTES] uint8, the layout above."""
    count, blocks, _ = shape_of(*values.shape)
    padded = np.zeros((count * STRIP, blocks * BLOCK), np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    integers, scale = quantized(padded.reshape(count, STRIP, blocks, GROUPS, GROUP))
    out = np.empty((count, blocks, BLOCK_BYTES), np.uint8)
    quads = integers.reshape(count, STRIP, blocks, BLOCK // 4, 4).transpose(0, 2, 3, 1, 4)
    out[:, :, :-LINE] = quads.reshape(count, blocks, -1).view(np.uint8)
    out[:, :, -LINE:] = np.ascontiguousarray(scale.transpose(0, 2, 1, 3)).reshape(count, blocks, -1).view(np.uint8)
    return out


def unpacked(stored: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """The inverse of `packed`, to float32 [rows, cols]."""
    count, blocks, _ = stored.shape
    quads = np.ascontiguousarray(stored[:, :, :-LINE]).view(np.int8).reshape(count, blocks, BLOCK // 4, STRIP, 4)
    scale = bf16_to_float32(np.ascontiguousarray(stored[:, :, -LINE:]).view(np.uint16).reshape(count, blocks, STRIP, GROUPS))
    integers = quads.transpose(0, 3, 1, 2, 4).reshape(count, STRIP, blocks, GROUPS, GROUP)
    values = integers * scale.transpose(0, 2, 1, 3)[..., None]
    return values.reshape(count * STRIP, blocks * BLOCK)[:rows, :cols]


def pack(tensors: Sequence[Tensor]) -> tuple[Int8Rows, list[np.ndarray]]:
    """The matrices [rows, cols] of a layer each, quantized, with the arrays that hold them; one layer at a time is in float32."""
    owners = [packed(tensor.float32()) for tensor in tensors]
    at = np.array([array.ctypes.data for array in owners], np.int64)
    rows, cols = tensors[0].shape
    return Int8Rows(at, rows, cols), owners


def unpack(rows: Int8Rows, layer: int) -> np.ndarray:
    """One layer's matrix [rows, cols] as float32."""
    shape = shape_of(rows.rows, rows.cols)
    return unpacked(view(rows.at[layer], shape[0] * shape[1] * shape[2], np.uint8).reshape(shape), rows.rows, rows.cols)
