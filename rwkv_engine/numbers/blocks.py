"""`Blocks`: a tensor as ggml quantizes it, in blocks of a few numbers; decoded a few rows at a time.

In four types, a number is a whole number times its block's float16 scale, which comes first in the block:

    Q8_0    34 bytes: 32 whole numbers int8
    Q5_0    22 bytes: 32 fifth bits (uint32), 16 bytes of lower bits; minus 16
    Q4_0    18 bytes: 16 bytes; minus 8
    IQ4_NL  18 bytes: 16 bytes of codes of `code_layout.INT4`

A byte of 16 holds number j in its low half, and number 16 + j in its high half.
Source: github.com/ggml-org/ggml, src/ggml-common.h and src/ggml-quants.c.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rwkv_engine.numbers.code_layout import INT4

#: numbers of a block of these types
GROUP = 32


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of ggml: its name ("Q4_0"), and the numbers and bytes of a block."""

    name: str
    values: int
    size: int

    @property
    def bits(self) -> float:
        """Bits of one number, scales included."""
        return 8 * self.size / self.values


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of one tensor.

    kind    of the blocks.
    data    uint8 [..., bytes of a row], a view of the mapped file.
    decode  (uint8 [..., bytes of whole blocks]) -> float32 [..., their numbers].
    scale   factor for every number, a power of two.
    """

    kind: Kind
    data: np.ndarray
    decode: Callable[[np.ndarray], np.ndarray]
    scale: float = 1.0

    @property
    def count(self) -> int:
        """Numbers in all blocks."""
        return self.data.size // self.kind.size * self.kind.values

    def float32(self) -> np.ndarray:
        """All numbers [..., of a row]."""
        return self._decoded(self.data)

    def rows(self, first: int, last: int) -> np.ndarray:
        """Some rows of a matrix."""
        return self._decoded(self.data[first:last])

    def at(self, places: np.ndarray) -> np.ndarray:
        """The numbers at these places (C order); decodes only their blocks."""
        blocks, which = np.unique(places // self.kind.values, return_inverse=True)
        decoded = self._decoded(self.data.reshape(-1, self.kind.size)[blocks])
        return decoded.reshape(-1, self.kind.values)[which.reshape(-1), places % self.kind.values]

    def integers(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(whole numbers [rows, blocks, 32] int8, scales [rows, blocks] float32) of some rows of a matrix,
        whose products are exactly its numbers; None if the type has no such.
        """
        take = _INTEGERS.get(self.kind.name)
        if take is None:
            return None
        part = self.data[first:last]
        blocks = part.reshape(len(part), -1, self.kind.size)
        scale = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0].astype(np.float32)
        return take(blocks[..., 2:]), scale * np.float32(self.scale)

    def _decoded(self, data: np.ndarray) -> np.ndarray:
        values = self.decode(data)
        return values if self.scale == 1.0 else values * np.float32(self.scale)


def _halves(packed: np.ndarray) -> np.ndarray:
    """[..., 32] uint8 from 0 to 15: the low halves of 16 bytes, then the high ones."""
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)


def _q4_0(packed: np.ndarray) -> np.ndarray:
    return _halves(packed).view(np.int8) - np.int8(8)


def _q5_0(packed: np.ndarray) -> np.ndarray:
    fifth = np.unpackbits(np.ascontiguousarray(packed[..., :4]), axis=-1, bitorder="little")
    return (_halves(packed[..., 4:]) | (fifth << np.uint8(4))).view(np.int8) - np.int8(16)


def _q8_0(packed: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(packed).view(np.int8)


def _iq4_nl(packed: np.ndarray) -> np.ndarray:
    return np.array(INT4.values, np.int8)[_halves(packed)]


_INTEGERS = {"Q8_0": _q8_0, "Q5_0": _q5_0, "Q4_0": _q4_0, "IQ4_NL": _iq4_nl}
