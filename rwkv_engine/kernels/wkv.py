"""The recurrences: how each family updates its constant-size state for one token."""

import numpy as np

from rwkv_engine.kernels._jit import kernel
from rwkv_engine.kernels.activations import exp
from rwkv_engine.kernels.pointers import address_of
from rwkv_engine.kernels.simd_channels import wkv7_strips
from rwkv_engine.kernels.vectors import LANES
from rwkv_engine.system.cpu import wide_vectors

#: value channels that fit in registers; most heads have 64
_STRIPS = 4 if wide_vectors() else 2
CHANNELS = _STRIPS * LANES
_strips = wkv7_strips(_STRIPS)


@kernel
def wkv4(
    k: np.ndarray,
    v: np.ndarray,
    u: np.ndarray,
    w: np.ndarray,
    aa: np.ndarray,
    bb: np.ndarray,
    pp: np.ndarray,
    y: np.ndarray,
) -> None:
    """One token of the RWKV-4 recurrence, per channel: updates aa, bb, pp, writes y; all [C] float32.

        aa / bb = (sum e^(k_i - decay) v_i) / (sum e^(k_i - decay))
    Both sums are kept relative to their running maximum pp, so that nothing overflows.
    w = -exp(time_decay) <= 0, u = time_first.
    Source: BlinkDL/ChatRWKV@965e40b, att_one; the maximum is first taken with u + k (output), then with w
    (update).
    """
    for c in range(k.shape[0]):
        ahead = u[c] + k[c]
        p = max(pp[c], ahead)
        e1, e2 = exp(pp[c] - p), exp(ahead - p)
        y[c] = (e1 * aa[c] + e2 * v[c]) / (e1 * bb[c] + e2)
        behind = pp[c] + w[c]
        p = max(behind, k[c])
        e1, e2 = exp(behind - p), exp(k[c] - p)
        aa[c] = e1 * aa[c] + e2 * v[c]
        bb[c] = e1 * bb[c] + e2
        pp[c] = p


@kernel
def wkv6_head(
    S: np.ndarray, r: np.ndarray, k: np.ndarray, v: np.ndarray, u: np.ndarray, w: np.ndarray, y: np.ndarray
) -> None:
    """One head, one token of the RWKV-5 and RWKV-6 recurrence: updates S in place, writes y.

    S [N, N] f32, one row per key channel;  r k v u w y [N] f32;  w is the factor itself, 0 < w < 1.
        y <- r (S + u * k v')          S <- diag(w) S + k v'
    Cost: S is read and written once. Source: BlinkDL/ChatRWKV@965e40b, att_one_v5 and att_one_v6.
    """
    n = y.shape[0]
    for j in range(n):
        y[j] = np.float32(0)
    for i in range(n):
        row = S[i]
        ri, ki, wi = r[i], k[i], w[i]
        direct = ri * u[i] * ki
        for j in range(n):
            y[j] += ri * row[j] + direct * v[j]
            row[j] = wi * row[j] + ki * v[j]


@kernel
def wkv7_head(
    S: np.ndarray,
    r: np.ndarray,
    w: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    y: np.ndarray,
) -> None:
    """One head, one token of the RWKV-7 recurrence: updates S in place, writes y.

    S [N, N] f32, one row per key channel (BlinkDL's matrix transposed, so that no sum runs across a vector);
    r w k v a b y [N] f32.
        S <- diag(w) S + b (a' S) + k v'          y <- r' S
    Cost: S moves in and out of memory once. Source: BlinkDL/RWKV-LM@524481d, RWKV-v7/rwkv_v7_numpy.py, a =
    -kk, b = kk * iclr.
    """
    n = y.shape[0]
    whole = n - n % CHANNELS
    for i in range(0, whole, CHANNELS):
        here = address_of(S) + 4 * i
        vectors = address_of(r), address_of(w), address_of(k), address_of(a), address_of(b)
        _strips(here, 4 * n, n, *vectors, address_of(v) + 4 * i, address_of(y) + 4 * i)
    wkv7_rest(S, r, w, k, v, a, b, y, whole)


@kernel
def wkv7_rest(
    S: np.ndarray,
    r: np.ndarray,
    w: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    y: np.ndarray,
    first: int,
) -> None:
    """`wkv7_head` for the value channels from `first` on, one by one; with 0, its slow twin."""
    n = y.shape[0]
    for i in range(first, n):
        removed, total = np.float32(0), np.float32(0)
        for j in range(n):
            removed += S[j, i] * a[j]
        for j in range(n):
            S[j, i] = S[j, i] * w[j] + removed * b[j] + v[i] * k[j]
            total += S[j, i] * r[j]
        y[i] = total
