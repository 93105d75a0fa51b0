"""The triangle of a positive matrix: in numba, so that the result does not depend on the number of threads, as
that of a BLAS may.
"""

import numpy as np

from rwkv_engine.kernels._jit import program


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
