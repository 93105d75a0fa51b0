"""Layer norm and group norm in float32, in two passes: first the mean, then the variance around it."""

import numpy as np

from rwkv_engine.kernels._jit import kernel

#: epsilon of all norms but the group norm after the recurrence (as in BlinkDL's v5, v6 and v7)
EPSILON = np.float32(1e-5)
GROUP_EPSILON = np.float32(64e-5)


@kernel
def layer_norm(out: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, epsilon: float) -> None:
    """out [C] <- (x - mean) / sqrt(variance + epsilon) * weight + bias; all [C] float32, out may be x."""
    n = x.shape[0]
    mean = np.float32(0)
    for c in range(n):
        mean += x[c]
    mean /= np.float32(n)
    variance = np.float32(0)
    for c in range(n):
        d = x[c] - mean
        variance += d * d
    scale = np.sqrt(
        np.float32(1) / (variance / np.float32(n) + epsilon)
    )  # not 1 / sqrt: LLVM would divide every number by the root
    for c in range(n):
        out[c] = (x[c] - mean) * scale * weight[c] + bias[c]
