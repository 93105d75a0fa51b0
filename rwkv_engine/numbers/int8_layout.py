"""The byte layout of packed INT8 matrices, in plain NumPy: integers from -127 to 127, a BF16 scale per 32.

A matrix [rows, cols], padded with zeros to a multiple of 16 rows and 64 cols, is stored in strips of 16 rows;
a strip in blocks of 64 inputs; a block in 17 lines of 64 bytes: 16 of integers [16 quads of inputs][16
rows][4 inputs], then one of scales [16 rows][2 groups of 32 inputs]. weight = integer * scale, scale =
largest of the row's group / 127, rounded up to BF16. 8.5 bits per weight. A strip is read as one stream, and
a line is what one vector instruction multiplies (`kernels.int8_levels`).
"""

from collections.abc import Callable

import numpy as np

from rwkv_engine.numbers.bf16 import bf16_to_float32

#: rows of a strip, inputs of a group, groups of a block
STRIP, GROUP, GROUPS = 16, 32, 2
#: inputs of a block; bytes of a line; bytes of a block: its integers, and a line of scales
BLOCK = GROUP * GROUPS
LINE = 4 * STRIP
BLOCK_BYTES = BLOCK // 4 * LINE + LINE
#: strips quantized at a time, to need little memory besides the result
_PIECE = 64


def shape_of(rows: int, cols: int) -> tuple[int, int, int]:
    """Shape of a packed matrix: [strips, blocks, BLOCK_BYTES]."""
    return -(-rows // STRIP), -(-cols // BLOCK), BLOCK_BYTES


def quantized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(integers [..., 32] int8, scales [...] as BF16 bits) of float32 values [..., 32], rounded to nearest.

    The error is at most half a scale. A NaN or infinity makes the scale NaN, so that it is not lost.
    """
    largest = np.maximum(values.max(axis=-1), -values.min(axis=-1))
    bits = (largest / np.float32(127)).view(np.uint32)
    scale = ((bits + np.uint32(0xFFFF)) >> np.uint32(16)).astype(np.uint16)
    scale[~np.isfinite(largest)] = 0x7FC0
    wide = bf16_to_float32(scale)
    inverse = np.divide(np.float32(1), wide, out=np.zeros_like(wide), where=wide > 1e-37)
    if np.isnan(wide).any():
        values = np.where(np.isnan(wide)[..., None], np.float32(0), values)
    numbers = values * inverse[..., None]
    return np.rint(numbers, out=numbers).astype(np.int8), scale


def packed(rows: int, cols: int, read: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """A matrix as [strips, blocks, BLOCK_BYTES] uint8; read(first, last) returns rows of it as float32."""
    count, blocks, _ = shape_of(rows, cols)
    out = np.empty((count, blocks, BLOCK_BYTES), np.uint8)
    for first in range(0, count, _PIECE):
        part = read(first * STRIP, min((first + _PIECE) * STRIP, rows))
        strips = -(-len(part) // STRIP)
        padded = np.zeros((strips * STRIP, blocks * BLOCK), np.float32)
        padded[: len(part), :cols] = part
        integers, scale = quantized(padded.reshape(strips, STRIP, blocks, GROUPS, GROUP))
        quads = integers.reshape(strips, STRIP, blocks, BLOCK // 4, 4).transpose(0, 2, 3, 1, 4)
        here = out[first : first + strips]
        here[:, :, :-LINE] = quads.reshape(strips, blocks, -1).view(np.uint8)
        here[:, :, -LINE:] = (
            np.ascontiguousarray(scale.transpose(0, 2, 1, 3)).reshape(strips, blocks, -1).view(np.uint8)
        )
    return out


def unpacked(stored: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """The inverse of `packed`, to float32 [rows, cols]."""
    count, blocks, _ = stored.shape
    quads = (
        np.ascontiguousarray(stored[:, :, :-LINE]).view(np.int8).reshape(count, blocks, BLOCK // 4, STRIP, 4)
    )
    scale = bf16_to_float32(
        np.ascontiguousarray(stored[:, :, -LINE:]).view(np.uint16).reshape(count, blocks, STRIP, GROUPS)
    )
    integers = quads.transpose(0, 3, 1, 2, 4).reshape(count, STRIP, blocks, GROUPS, GROUP)
    values = integers * scale.transpose(0, 2, 1, 3)[..., None]
    return np.ascontiguousarray(values.reshape(count * STRIP, blocks * BLOCK)[:rows, :cols])
