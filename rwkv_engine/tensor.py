"""`Tensor`: one stored tensor of a checkpoint, read only when asked.

Readers (`checkpoints`) make them, families and formats consume them; neither needs to know the other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: element type in a file -> numpy dtype of its bits (BF16 has none of its own: its upper 16 bits of a float32)
BITS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def bf16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Widen BF16 bits (uint16, any shape) to float32; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float32_to_bf16(values: np.ndarray) -> np.ndarray:
    """Round float32 values (any shape) to BF16 bits (uint16), to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor of a checkpoint.

    name    its name in the file, for error messages.
    shape   axis lengths.
    dtype   "F32", "F16" or "BF16".
    bits    returns the elements as float32, float16, or uint16 (the bits of BF16), of that shape. Where the file
            stores exactly these elements it is a view of the mapped file (possibly strided), so it costs no memory.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: Callable[[], np.ndarray]

    def float32(self) -> np.ndarray:
        """The elements as a float32 array of `shape`: C-contiguous, and never a view of the file."""
        bits = self.bits()
        return np.ascontiguousarray(bf16_to_float32(bits)) if self.dtype == "BF16" else np.array(bits, np.float32)
