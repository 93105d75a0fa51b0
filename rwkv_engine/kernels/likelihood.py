"""What logits say of the tokens that came, and how far two models' logits are apart.

Twins: tests/evaluation/test_text_figures.py.
"""

import numpy as np

from rwkv_engine.kernels._jit import kernel, program
from rwkv_engine.kernels.activations import exp
from rwkv_engine.kernels.sample import PIECE, highest

#: below this, |d| + e^-d - 1 is summed as a series: the plain sum has lost its digits there
_SMALL = np.float32(0.1)


@kernel
def log_total(x: np.ndarray, top: float) -> float:
    """log of the sum of e^x over x [V] float32, of which `top` is the largest."""
    total = np.float64(0)
    for start in range(0, x.shape[0], PIECE):
        part = x[start : start + PIECE]
        piece = np.float32(0)
        for i in range(part.shape[0]):
            piece += exp(part[i] - top)
        total += np.float64(piece)
    return np.float64(top) + np.log(total)


@kernel
def place_of(x: np.ndarray, value: float) -> int:
    """The first place of `value` in x [V]."""
    for i in range(x.shape[0]):
        if x[i] == value:
            return i
    return 0


@program
def costs_of(logits: np.ndarray, targets: np.ndarray, costs: np.ndarray, best: np.ndarray) -> None:
    """costs [T] float64 <- nats that logits [T, V] float32 ask for targets [T] int64; best [T] int64 <- the
    likeliest tokens.
    """
    for t in range(logits.shape[0]):
        x = logits[t]
        top = highest(x)
        costs[t] = log_total(x, top) - np.float64(x[targets[t]])
        best[t] = place_of(x, top)


@program
def divergences(theirs: np.ndarray, ours: np.ndarray, kl: np.ndarray) -> None:
    """kl [T] float64 <- the Kullback-Leibler divergence, in nats, of `ours` from `theirs`, both logits [T, V]
    float32.

    With d = log p - log q it is the sum of p (d + e^-d - 1): no term is below 0, and an error of the two
    normalising sums, which is the same in every d, counts only in the second order. The plain sum of p d ends
    at 1e-7.
    """
    for t in range(theirs.shape[0]):
        a, b, total = theirs[t], ours[t], np.float64(0)
        low, high = np.float32(log_total(a, highest(a))), np.float32(log_total(b, highest(b)))
        for start in range(0, a.shape[0], PIECE):
            x, y, piece = a[start : start + PIECE], b[start : start + PIECE], np.float32(0)
            for i in range(x.shape[0]):
                log_p, log_q = x[i] - low, y[i] - high
                p, q, d = exp(log_p), exp(log_q), log_p - log_q
                near = d * d * (np.float32(0.5) - d * (np.float32(1 / 6) - d * np.float32(1 / 24)))
                piece += p * near if abs(d) < _SMALL else p * d + q - p
            total += np.float64(piece)
        kl[t] = max(total, 0.0)
