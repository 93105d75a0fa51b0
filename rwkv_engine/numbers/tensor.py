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
from rwkv_engine.numbers.blocks import Blocks, Kind
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
    kind    of a tensor that a GGUF has quantized; `bits` decodes it to float32.
    blocks  returns it as it is there; None if its numbers were changed since.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: Callable[[], np.ndarray]
    format: Format | None = None
    kind: Kind | None = None
    blocks: Callable[[], Blocks] | None = None

    @property
    def type(self) -> str:
        """What the file calls its type: "Q4_0", "BF16"."""
        return self.dtype if self.kind is None else self.kind.name

    @property
    def nbytes(self) -> int:
        """Bytes of the stored elements."""
        if self.format is not None:
            return self.format.bytes_of(*self.shape)
        if self.kind is not None:
            return prod(self.shape) // self.kind.values * self.kind.size
        return prod(self.shape) * BITS[self.dtype].itemsize

    def rows(self) -> Callable[[int, int], np.ndarray]:
        """read(first, last): rows of a float matrix as float32; avoids converting a large one as a whole."""
        if self.blocks is not None:
            return self.blocks().rows
        bits = self.bits()
        return lambda first, last: (
            bf16_to_float32(bits[first:last])
            if self.dtype == "BF16"
            else np.asarray(bits[first:last], np.float32)
        )

    def integers(self) -> Callable[[int, int], tuple[np.ndarray, np.ndarray] | None]:
        """read(first, last): as `Blocks.integers`; None for everything but a GGUF's quantized matrices."""
        return (lambda first, last: None) if self.blocks is None else self.blocks().integers

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

    def now_in_memory(array: np.ndarray) -> None:
        if is_mapped(array):
            last.append(array)
            if not stay:
                prefer_small([array])

    def reading(tensor: Tensor) -> Tensor:
        def blocks() -> Blocks:
            while last:
                give_back(last.pop())
            assert tensor.blocks is not None
            found = tensor.blocks()
            now_in_memory(found.data)
            return found

        def bits() -> np.ndarray:
            if tensor.blocks is not None:
                return blocks().float32()
            while last:
                give_back(last.pop())
            array = tensor.bits()
            now_in_memory(array)
            return array

        return dataclasses.replace(tensor, bits=bits, blocks=blocks if tensor.blocks else None)

    return {name: reading(tensor) for name, tensor in tensors.items()}
