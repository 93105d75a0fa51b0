"""The byte layout of packed matrices of 4-bit and 5-bit codes, in plain numpy: codes of a table of 16 or 32
values, an 8-bit scale for every 16 inputs of a row, a float32 scale for each row.

A matrix [rows, cols], padded to a multiple of 16 rows and of 64 cols, lies in strips of 16 rows; in a strip,
blocks of 64 inputs, then one line of 64 bytes with the rows' scales [16] float32. A block is 8 lines of codes'
lower 4 bits, with 5-bit codes 2 lines of their fifth bits, then one line of scales [4 groups of 16 inputs][16
rows] int8. A line of codes holds two quads of inputs [16 rows][4 inputs], the first one's in the low halves of
its bytes, the second one's in the high halves. A line of fifth bits serves 8 quads: at a code's place in its
quad, bit q is that of quad q. weight = value of the code * scale * row's scale. 4.5 or 5.5 bits a weight, and
32 a row.
"""

from dataclasses import dataclass

import numpy as np

#: rows of a strip, inputs of a group, groups of a block
STRIP, GROUP, GROUPS = 16, 16, 4
#: inputs of a block; bytes of a line; lines of a block's lower bits; bytes of the rows' scales
BLOCK = GROUP * GROUPS
LINE = 4 * STRIP
CODE_LINES = BLOCK // 8
TAIL = LINE
#: quads of inputs that a line of fifth bits serves
SERVED = 8
#: a row's scale is such that the largest scale of a group can be this many times what brings its largest
#: weight to the table's end
_HEADROOM = np.float32(1.3)
LARGEST_SCALE = 127
#: what the first code stands for in every table; no value is larger in size
FIRST = -127
#: scales that are tried for a group, as parts of the one that brings its largest weight to the table's end;
#: each with either sign, as tables are not symmetric
TRIED = tuple(float(part) for part in np.float32(0.82) + np.float32(0.02) * np.arange(24, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class Codes:
    """What codes stand for: 16 or 32 values, ascending."""

    values: tuple[int, ...]

    @property
    def edges(self) -> tuple[float, ...]:
        """Halfway between neighbours: what lies above it is nearer to the next value."""
        return tuple((low + high) / 2 for low, high in zip(self.values, self.values[1:], strict=False))

    @property
    def fifths(self) -> int:
        """Lines of fifth bits in a block."""
        return 2 * CODE_LINES // SERVED * (len(self.values) // 32)

    @property
    def block_bytes(self) -> int:
        """Bytes of a block: its codes, and a line of scales."""
        return (CODE_LINES + self.fifths + 1) * LINE

    def shape_of(self, rows: int, cols: int) -> tuple[int, int]:
        """Shape of a packed matrix: [strips, bytes of a strip]."""
        return -(-rows // STRIP), -(-cols // BLOCK) * self.block_bytes + TAIL

    def quantized(
        self, values: np.ndarray, scale: np.ndarray, importance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(codes [rows, cols] uint8, scales [rows, groups] int8) of float32 weights [rows, cols]: those with
        the smallest squared error.

        scale       [rows] of `row_scales`.
        importance  [cols] float32: by which the squared error of a column counts.
        The slow twin of `kernels.code_search`, which gives the same numbers.
        """
        values = np.where(np.isnan(scale)[:, None], np.float32(0), values)
        scale = np.nan_to_num(scale)
        table, edges = np.array(self.values, np.float32), np.array(self.edges, np.float32)
        groups = values.reshape(len(values), -1, GROUP)
        weight = importance.reshape(-1, GROUP)
        largest = np.abs(groups).max(axis=2)
        unit = scale[:, None] * np.float32(-FIRST)
        ideal = np.divide(largest, unit, out=np.zeros_like(largest), where=unit > 0)
        best, chosen = np.full_like(largest, np.inf), np.zeros_like(largest)
        for part in TRIED:
            size = np.minimum(np.rint(ideal * np.float32(part)), np.float32(LARGEST_SCALE))
            for signed in (size, -size):
                step = signed * scale[:, None]
                error = np.zeros_like(largest)
                for k in range(GROUP):
                    value = table[np.searchsorted(edges, groups[:, :, k] * _inverse(step))]
                    off = groups[:, :, k] - value * step
                    error = error + off * off * weight[:, k]
                better = error < best
                best, chosen = np.where(better, error, best), np.where(better, signed, chosen)
        inverse = _inverse(chosen * scale[:, None])
        codes = np.searchsorted(edges, groups * inverse[:, :, None]).astype(np.uint8)
        return codes.reshape(values.shape), chosen.astype(np.int8)

    def kept(self, integers: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(codes [rows, cols] uint8, scales [rows, groups] int8, scales of rows [rows] float32) of the table's
        values [rows, groups of 32, 32] int8 and their float32 scales [rows, groups of 32]: the same codes.

        Scales are rounded to a 127th of the row's largest. A NaN or infinity makes the row's scale NaN.
        """
        largest = np.abs(scale).max(axis=1)
        row: np.ndarray = largest / np.float32(LARGEST_SCALE)
        row[~np.isfinite(row)] = np.nan
        steps = np.divide(scale, row[:, None], out=np.zeros_like(scale), where=row[:, None] > 0)
        codes = np.searchsorted(np.array(self.values, np.int8), integers).astype(np.uint8)
        twice = np.rint(steps).astype(np.int8).repeat(integers.shape[2] // GROUP, axis=1)
        return codes.reshape(len(codes), -1), twice, row

    def arranged(self, codes: np.ndarray, scales: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """[strips, bytes of a strip] uint8 of what `quantized` and `row_scales` give for whole strips and
        blocks.
        """
        strips, blocks = len(codes) // STRIP, codes.shape[1] // BLOCK
        out = np.empty((strips, blocks * self.block_bytes + TAIL), np.uint8)
        out[:, -TAIL:] = np.ascontiguousarray(scale).view(np.uint8).reshape(strips, TAIL)
        block = out[:, :-TAIL].reshape(strips, blocks, -1, LINE)
        # [strips, rows, blocks, quads, inputs] -> [strips, blocks, quads, rows, inputs]
        quads = codes.reshape(strips, STRIP, blocks, 2 * CODE_LINES, 4).transpose(0, 2, 3, 1, 4)
        quads = quads.reshape(strips, blocks, 2 * CODE_LINES, LINE)
        block[:, :, :CODE_LINES] = quads[:, :, ::2] & 15 | quads[:, :, 1::2] << 4
        if self.fifths:
            bits = (quads >> 4).reshape(strips, blocks, self.fifths, SERVED, LINE)
            block[:, :, CODE_LINES:-1] = np.packbits(bits, axis=3, bitorder="little")[:, :, :, 0]
        turned = scales.view(np.uint8).reshape(strips, STRIP, blocks, GROUPS).transpose(0, 2, 3, 1)
        block[:, :, -1] = turned.reshape(strips, blocks, LINE)
        return out

    def unpacked(self, stored: np.ndarray, rows: int, cols: int) -> np.ndarray:
        """float32 [rows, cols] of a packed matrix."""
        strips, blocks = len(stored), (stored.shape[1] - TAIL) // self.block_bytes
        scale = np.ascontiguousarray(stored[:, -TAIL:]).view(np.float32).reshape(strips, STRIP, 1, 1)
        block = stored[:, :-TAIL].reshape(strips, blocks, -1, LINE)
        line = block[:, :, :CODE_LINES]
        quads = np.stack([line & 15, line >> 4], axis=3).reshape(strips, blocks, 2 * CODE_LINES, LINE)
        if self.fifths:
            bits = np.unpackbits(block[:, :, CODE_LINES:-1, None], axis=3, bitorder="little")
            quads |= bits.reshape(quads.shape) << 4
        codes = quads.reshape(strips, blocks, -1, STRIP, 4).transpose(0, 3, 1, 2, 4)
        values = np.array(self.values, np.float32)[codes.reshape(strips, STRIP, -1, GROUP)]
        scales = block[:, :, -1].view(np.int8).reshape(strips, blocks, GROUPS, STRIP)
        wide = scales.transpose(0, 3, 1, 2).reshape(strips, STRIP, -1, 1).astype(np.float32)
        return np.ascontiguousarray(
            (values * (wide * scale)).reshape(strips * STRIP, blocks * BLOCK)[:rows, :cols]
        )


#: 4 bits: the values are those of llama.cpp's IQ4_NL, which lie close together where weights are many
INT4 = Codes((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))
#: 5 bits: 127 (x + x |x|) / 2, rounded, of x = -1, -15/16 ... 15/16
INT5 = Codes(
    (-127, -115, -104, -94, -83, -74, -64, -56, -48, -40, -33, -26, -20, -14, -9, -4)
    + (0, 4, 9, 14, 20, 26, 33, 40, 48, 56, 64, 74, 83, 94, 104, 115)
)


def row_scales(values: np.ndarray) -> np.ndarray:
    """[rows] float32 of weights [rows, cols].

    A NaN or infinity makes the scale NaN, so that it is not lost.
    """
    largest = np.maximum(values.max(axis=1), -values.min(axis=1))
    scale: np.ndarray = largest * (_HEADROOM / np.float32(LARGEST_SCALE * -FIRST))
    scale[~np.isfinite(largest)] = np.nan
    return scale


def padded(rows: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Weights [rows, cols] with zeros behind them, to whole strips and blocks of so many cols."""
    out = np.zeros((-(-rows.shape[0] // STRIP) * STRIP, -(-rows.shape[1] // block) * block), rows.dtype)
    out[: rows.shape[0], : rows.shape[1]] = rows
    return out


def _inverse(step: np.ndarray) -> np.ndarray:
    """1 / step; 0 where it is too small to divide by."""
    return np.divide(np.float32(1), step, out=np.zeros_like(step), where=np.abs(step) > np.float32(1e-37))
