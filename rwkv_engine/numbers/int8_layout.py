"""The byte layout of packed INT8 matrices, in plain NumPy: integers from -127 to 127, a BF16 scale per 32.

A matrix [rows, cols], padded with zeros to a multiple of 16 rows and 64 cols, is stored in strips of 16 rows;
a strip in blocks of 64 inputs; a block in 17 lines of 64 bytes: 16 of integers [16 quads of inputs][16
rows][4 inputs], then one of scales [16 rows][2 groups of 32 inputs]. weight = integer * scale, scale =
largest of the row's group / 127, rounded up to BF16. 8.5 bits per weight. A strip is read as one stream, and
a line is what one vector instruction multiplies (`kernels.int8_levels`).
"""

from collections.abc import Callable

import numpy as np

from rwkv_engine.numbers.bf16 import bf16_to_float32, float32_to_bf16

#: rows of a strip, inputs of a group, groups of a block
STRIP, GROUP, GROUPS = 16, 32, 2
#: inputs of a block; bytes of a line; bytes of a block: its integers, and a line of scales
BLOCK = GROUP * GROUPS
LINE = 4 * STRIP
BLOCK_BYTES = BLOCK // 4 * LINE + LINE
#: the largest integer
LARGEST = 127
#: whole numbers that `kept` tries
_TIMES = 15
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


def kept(integers: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same as `quantized` gives, of whole numbers [..., 32] from -127 to 127 and their float32 scales
    [...], so that only scales are rounded.

    Small numbers are multiplied by the whole number for which the scale, divided by it, is nearest to a BF16.
    A scale that has 8 significant bits stays exact; others are off by at most 2^-8 of themselves.
    """
    largest = np.abs(integers).max(axis=-1)
    best, least = np.ones(scale.shape, np.int8), np.full(scale.shape, np.inf, np.float32)
    chosen = np.full(scale.shape, 0x7FC0, np.uint16)
    with np.errstate(invalid="ignore"):  # what is not finite stays NaN
        for times in range(1, 1 + min(_TIMES, LARGEST // max(1, int(largest.min(initial=LARGEST))))):
            bits = float32_to_bf16(scale / np.float32(times))
            off = np.abs(bf16_to_float32(bits) * np.float32(times) - scale)
            better = (off < least) & (largest <= LARGEST // times)
            best, least = np.where(better, np.int8(times), best), np.where(better, off, least)
            chosen = np.where(better, bits, chosen)
    return integers * best[..., None], chosen


def packed(
    rows: int,
    cols: int,
    read: Callable[[int, int], np.ndarray],
    integers: Callable[[int, int], tuple[np.ndarray, np.ndarray] | None] | None = None,
) -> np.ndarray:
    """A matrix as [strips, blocks, BLOCK_BYTES] uint8.

    read(first, last)      returns rows of it as float32 [n, cols].
    integers(first, last)  returns them as whole numbers [n, groups, 32] int8 and scales [n, groups] float32,
                           or None.
    """
    count, blocks, _ = shape_of(rows, cols)
    out = np.empty((count, blocks, BLOCK_BYTES), np.uint8)
    for first in range(0, count, _PIECE):
        span = first * STRIP, min((first + _PIECE) * STRIP, rows)
        whole = integers(*span) if integers else None
        if whole is None or (whole[0] < -LARGEST).any():
            numbers, scale = quantized(
                _padded(read(*span), blocks * BLOCK).reshape(-1, blocks * GROUPS, GROUP)
            )
        else:
            numbers, scale = kept(*whole)
            numbers = _padded(numbers.reshape(len(numbers), -1), blocks * BLOCK)
            scale = _padded(scale, blocks * GROUPS)
        strips = len(numbers) // STRIP
        quads = numbers.reshape(strips, STRIP, blocks, BLOCK // 4, 4).transpose(0, 2, 3, 1, 4)
        here = out[first : first + strips]
        here[:, :, :-LINE] = quads.reshape(strips, blocks, -1).view(np.uint8)
        lines = scale.reshape(strips, STRIP, blocks, GROUPS).transpose(0, 2, 1, 3)
        here[:, :, -LINE:] = np.ascontiguousarray(lines).reshape(strips, blocks, -1).view(np.uint8)
    return out


def _padded(rows: np.ndarray, cols: int) -> np.ndarray:
    """The same numbers with zeros behind them: whole strips, and so many columns."""
    out = np.zeros((-(-len(rows) // STRIP) * STRIP, cols), rows.dtype)
    out[: rows.shape[0], : rows.shape[1]] = rows
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
