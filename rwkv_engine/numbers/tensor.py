"""`Tensor`: one stored tensor of a checkpoint, read only when needed.

Readers (`checkpoints`) make them, families and formats use them; neither needs to know the other.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from rwkv_engine.numbers.bf16 import bf16_to_float32
from rwkv_engine.numbers.format import Format
from rwkv_engine.system.pages import give_back, is_mapped, prefer_small

#: element type in a file -> NumPy dtype of its bits (BF16 has no type: the upper 16 bits of a float32)
BITS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
#: the bits of infinity; without the sign, those of numbers are below, those of NaN above
INFINITE = {"F32": np.uint32(0x7F800000), "F16": np.uint16(0x7C00), "BF16": np.uint16(0x7F80)}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor of a checkpoint.

    name    its name in the file, for error messages.
    shape   axis lengths.
    dtype   "F32", "F16", "BF16", or the tag of a packed matrix's format.
    bits    returns the elements in this shape as float32, float16, or uint16 (the bits of BF16), or a packed
            matrix as its format stores it. If the file has exactly these, it is a (possibly strided) view of
            the mapped file and needs no memory.
    format  of a packed matrix.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: Callable[[], np.ndarray]
    format: Format | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the stored elements."""
        if self.format is not None:
            return self.format.bytes_of(*self.shape)
        return prod(self.shape) * BITS[self.dtype].itemsize

    def rows(self) -> Callable[[int, int], np.ndarray]:
        """read(first, last): rows of a float matrix as float32; avoids converting a large one as a whole."""
        bits = self.bits()
        return lambda first, last: (
            bf16_to_float32(bits[first:last])
            if self.dtype == "BF16"
            else np.asarray(bits[first:last], np.float32)
        )

    def float32(self) -> np.ndarray:
        """The elements as a float32 array of `shape`: C-contiguous, and never a view of the file."""
        bits = self.bits()
        if self.format is not None:
            return self.format.to_float32(bits, *self.shape)
        return (
            np.ascontiguousarray(bf16_to_float32(bits))
            if self.dtype == "BF16"
            else np.array(bits, np.float32)
        )


def one_at_a_time(tensors: Mapping[str, Tensor], stay: bool) -> dict[str, Tensor]:
    """The same tensors; reading one gives back the pages of the one before, so only one is in memory.

    stay  whether most are used in the mapped file, and only some converted. If not, they are read in small
          pages: after giving back part of a large page, the next read near it would bring all of it back.
    """
    last: list[np.ndarray] = []

    def reading(tensor: Tensor) -> Tensor:
        def bits() -> np.ndarray:
            while last:
                give_back(last.pop())
            array = tensor.bits()
            if is_mapped(array):
                last.append(array)
                if not stay:
                    prefer_small([array])
            return array

        return dataclasses.replace(tensor, bits=bits)

    return {name: reading(tensor) for name, tensor in tensors.items()}
