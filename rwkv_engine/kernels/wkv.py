"""The recurrences: what each family does to its constant-size state for one token."""

import numpy as np

from rwkv_engine.kernels._jit import kernel
from rwkv_engine.kernels.activations import exp


@kernel
def wkv4(k, v, u, w, aa, bb, pp, y):
    """One token of the RWKV-4 recurrence, channel by channel: updates aa, bb, pp in place, writes y. All [C] float32.

    The sums  aa/bb = (sum e^(k_i - decay) v_i) / (sum e^(k_i - decay))  are kept relative to their running maximum pp, so
    nothing overflows. w = -exp(time_decay) <= 0, u = time_first.
    Source: BlinkDL/ChatRWKV@965e40b, att_one; the maximum is first taken with u + k (output), then with w (update).
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
def wkv6_head(S, r, k, v, u, w, y):
    """One head, one token of the RWKV-5 and RWKV-6 recurrence: updates S in place, writes y.

    S [N, N] f32, a row per key channel;  r k v u w y [N] f32;  w is the factor itself, 0 < w < 1.
        y <- r (S + u * k v')          S <- diag(w) S + k v'
    Cost: S moves through the core once. Source: BlinkDL/ChatRWKV@965e40b, att_one_v5 and att_one_v6.
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
def wkv7_head(S, r, w, k, v, a, b, y):
    """One head, one token of the RWKV-7 recurrence: updates S in place, writes y.

    S [N, N] f32, a row per value channel;  r w k v a b y [N] f32.
        S <- S diag(w) + (S a) b' + v k'          y <- S r
    Cost: S moves in and out of memory once. Source: BlinkDL/RWKV-LM@524481d, RWKV-v7/rwkv_v7_numpy.py, a = -kk, b = kk * iclr.
    """
    n = y.shape[0]
    for i in range(n):
        row = S[i]
        removed = np.float32(0)
        for j in range(n):
            removed += row[j] * a[j]
        vi, total = v[i], np.float32(0)
        for j in range(n):
            s = row[j] * w[j] + removed * b[j] + vi * k[j]
            row[j] = s
            total += s * r[j]
        y[i] = total
