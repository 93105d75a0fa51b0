"""BF16, the upper half of a float32. NumPy has no type for it: its bits are stored as uint16."""

import numpy as np


def bf16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Widen BF16 bits (uint16, any shape) to float32; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float32_to_bf16(values: np.ndarray) -> np.ndarray:
    """Round float32 values (any shape) to BF16 bits (uint16), to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
        np.uint16
    )
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)
