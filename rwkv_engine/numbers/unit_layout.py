"""The byte layout of packed INT8 matrices whose inputs are mostly zero: all weights of an input, a unit of a channel
mix, lie together, so that they need not be read where it is zero.

The numbers are those of `int8_layout`. A matrix [rows, cols], padded to a multiple of 64 rows and of 64 cols, is
stored in groups of 32 inputs. A group has its inputs one after another, [32][rows] int8, and then the scales of the
rows, [rows] BF16. In every 64 rows of an input, row 16 j + 4 l + i is at place 16 l + 4 j + i: merged byte by byte,
four inputs give the lines of `int8_layout`.
"""

import numpy as np

from rwkv_engine.numbers import int8_layout
from rwkv_engine.numbers.int8_layout import BLOCK, GROUP, GROUPS, LINE, STRIP

#: rows that are merged at a time, and their strips
ROWS = 64
STRIPS = ROWS // STRIP


def padded_rows(rows: int) -> int:
    """Rows as they are stored."""
    return -(-rows // ROWS) * ROWS


def shape_of(rows: int, cols: int) -> tuple[int, int]:
    """Shape of a packed matrix [groups, bytes of a group]."""
    return -(-cols // BLOCK) * GROUPS, padded_rows(rows) * (GROUP + 2)


def _whole(stored: np.ndarray) -> np.ndarray:
    """Strips with strips of zeros behind them, as many as whole 64 rows have."""
    strips = -(-len(stored) // STRIPS) * STRIPS
    return np.concatenate([stored, np.zeros((strips - len(stored), *stored.shape[1:]), np.uint8)])


def by_units(stored: np.ndarray) -> np.ndarray:
    """[groups, bytes of a group] uint8 of a matrix that `int8_layout` packed."""
    stored = _whole(stored)
    strips, blocks, _ = stored.shape
    rows = strips * STRIP
    # [64 rows, j, blocks, groups, quads, l, i, inputs] -> [blocks, groups, quads, inputs, 64 rows, l, j, i]
    numbers = stored[:, :, :-LINE].reshape(-1, STRIPS, blocks, GROUPS, GROUP // 4, 4, 4, 4)
    scales = stored[:, :, -LINE:].reshape(strips, blocks, STRIP, GROUPS, 2)
    out = np.empty((blocks * GROUPS, rows * (GROUP + 2)), np.uint8)
    out[:, : GROUP * rows] = numbers.transpose(2, 3, 4, 7, 0, 5, 1, 6).reshape(len(out), -1)
    out[:, GROUP * rows :] = scales.transpose(1, 3, 0, 2, 4).reshape(len(out), -1)
    return out


def by_strips(stored: np.ndarray) -> np.ndarray:
    """The inverse of `by_units`, but for the strips that whole 64 rows have more."""
    blocks, strips = len(stored) // GROUPS, stored.shape[1] // (GROUP + 2) // STRIP
    out = np.empty((strips, blocks, int8_layout.BLOCK_BYTES), np.uint8)
    numbers = stored[:, : GROUP * strips * STRIP].reshape(blocks, GROUPS, GROUP // 4, 4, -1, 4, STRIPS, 4)
    scales = stored[:, GROUP * strips * STRIP :].reshape(blocks, GROUPS, strips, STRIP, 2)
    out[:, :, :-LINE] = numbers.transpose(4, 6, 0, 1, 2, 5, 7, 3).reshape(strips, blocks, -1)
    out[:, :, -LINE:] = scales.transpose(2, 0, 3, 1, 4).reshape(strips, blocks, -1)
    return out
