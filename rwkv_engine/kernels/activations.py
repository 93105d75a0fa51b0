"""Elementwise functions that vectorise; numba calls the C library per number, which LLVM cannot vectorise.

Accuracy (tests/kernels/test_kernels.py): exp within 1.5e-7 relative over its range, sigmoid and tanh within
4e-7. NaN stays NaN.
"""

import math

import numpy as np

from rwkv_engine.kernels._jit import kernel, ordered
from rwkv_engine.kernels.pointers import float32_of_bits

_LOG2E = np.float32(math.log2(math.e))
# ln 2 in two parts, the first exact in 11 bits, so x - n ln 2 is exact for |n| < 2^12
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_HIGHEST, _LOWEST = np.float32(88.0), np.float32(-87.0)
# 1/k! for the polynomial of e^f, |f| <= ln(2)/2: the first omitted term is f^8/8! < 6e-9
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))


@ordered
def _power(x: float) -> tuple[float, float]:
    """(2^n, e^f - 1) for float32 x = n ln 2 + f, |f| <= ln(2)/2; x is clamped to [-87, 88]."""
    x = _HIGHEST if x > _HIGHEST else x
    x = _LOWEST if x < _LOWEST else x
    n = np.floor(x * _LOG2E + np.float32(0.5))
    f = (x - n * _LN2_HIGH) - n * _LN2_LOW
    tail = _C4 + f * (_C5 + f * (_C6 + f * _C7))
    whole = n if n == n else np.float32(0)  # NaN has no integer; the series is then NaN
    scale = float32_of_bits(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23))
    return scale, f * (np.float32(1) + f * (np.float32(0.5) + f * (_C3 + f * tail)))


@ordered
def exp(x: float) -> float:
    """e^x for float32; below -87 it stays at e^-87 (1.6e-38), above 88 at e^88 (1.7e38)."""
    scale, more = _power(x)
    return (np.float32(1) + more) * scale


@kernel
def sigmoid(x: float) -> float:
    """1 / (1 + e^-x) for float32."""
    return np.float32(1) / (np.float32(1) + exp(-x))


@ordered
def tanh(x: float) -> float:
    """tanh(x) for float32: m / (m + 2) with m = e^2x - 1, which keeps its precision near 0."""
    scale, more = _power(np.float32(2) * x)
    m = scale * more + (scale - np.float32(1))
    return m / (m + np.float32(2))
