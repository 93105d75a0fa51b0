"""The triangle of a positive matrix, and equations with it: in numba, so that the result does not depend on the
number of threads, as that of a BLAS may.
"""

import numpy as np

from rwkv_engine.kernels._jit import program
from rwkv_engine.kernels.vectors import LANES


@program
def factor(a: np.ndarray) -> None:
    """a [n, n] f64, positive definite <- in its lower triangle L, with L L' = a. Cost: n^3 / 6."""
    for i in range(a.shape[0]):
        for j in range(i + 1):
            total = a[i, j]
            product = 0.0
            for k in range(j):
                product += a[i, k] * a[j, k]
            total -= product
            a[i, j] = np.sqrt(total) if i == j else total / a[j, j]


@program
def solve(lower: np.ndarray, b: np.ndarray) -> None:
    """b [strips, n, 16] f64 <- of each of its columns the x with L L' x = b; lower [n, n] f64 is L.

    Cost: n^2 for each column.
    """
    n = lower.shape[0]
    for strip in range(b.shape[0]):
        x = b[strip]
        for j in range(n):
            for k in range(j):
                for r in range(LANES):
                    x[j, r] -= lower[j, k] * x[k, r]
            for r in range(LANES):
                x[j, r] /= lower[j, j]
        for j in range(n - 1, -1, -1):
            for r in range(LANES):
                x[j, r] /= lower[j, j]
            for k in range(j):
                for r in range(LANES):
                    x[k, r] -= lower[j, k] * x[j, r]


@program
def spread(weights: np.ndarray, moves: np.ndarray, out: np.ndarray) -> None:
    """out [strips, n, 16] f64 += weights' @ moves, of weights [strips, n, 16] f32 and moves [n, n] f64."""
    for strip in range(out.shape[0]):
        for i in range(moves.shape[0]):
            for j in range(moves.shape[0]):
                for r in range(LANES):
                    out[strip, j, r] += moves[i, j] * weights[strip, i, r]
