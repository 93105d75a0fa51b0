"""`Tensor`: one stored tensor of a checkpoint, read only when asked.

Readers (`checkpoints`) make them, families and formats consume them; neither needs to know the other.
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

#: element type in a file -> numpy dtype of its bits (BF16 has none of its own: its upper 16 bits of a
#: float32)
BITS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor of a checkpoint.

    name    its name in the file, for error messages.
    shape   axis lengths.
    dtype   "F32", "F16", "BF16", or the tag of the format of a packed matrix.
    bits    returns the elements as float32, float16, or uint16 (the bits of BF16), of that shape; a packed
            matrix as its format stores it. Where the file stores exactly these it is a view of the mapped
            file (possibly strided), so it costs no memory.
    format  of a packed matrix.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: Callable[[], np.ndarray]
    format: Format | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take as they are stored."""
        if self.format is not None:
            return self.format.bytes_of(*self.shape)
        return prod(self.shape) * BITS[self.dtype].itemsize

    def rows(self) -> Callable[[int, int], np.ndarray]:
        """read(first, last): some of a float matrix's rows as float32, so that a large one need never be
        widened as a whole.
        """
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
    """The same tensors; when one is read, the file's pages of the one before are given back: converting a
    model holds one tensor of it.

    stay  whether most are used where the file is mapped, and only some converted; else they are read in small
          pages, because of what is given back in large ones, the next read of a neighbour brings all back.
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
