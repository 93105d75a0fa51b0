"""The RWKV-7 recurrence with a gradient, as numba kernels inside a torch.autograd.Function.

Torch has no operator for it and a loop over time in torch would spend all its time in calls. Rows and heads
are independent, so each thread takes some of them; the state is kept every CHUNK steps and recomputed in
between on the way back.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch

#: head size; the inner loops have this constant length so that they become straight vector code
SIZE = 64
#: steps between two kept states
CHUNK = 16

_pool = ThreadPoolExecutor(os.cpu_count() or 1)
_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


@_jit
def _step(S, w, k, v, a, b, removed):
    """S [N, N] <- S diag(w) + (S a) b' + v k'; removed [N] <- S a, of the state before."""
    for i in range(SIZE):
        total = np.float32(0)
        for j in range(SIZE):
            total += S[i, j] * a[j]
        removed[i] = total
        vi = v[i]
        for j in range(SIZE):
            S[i, j] = S[i, j] * w[j] + total * b[j] + vi * k[j]


@_jit
def _forward(first, last, r, w, k, v, a, b, y, kept):
    """Heads [first, last) of all rows: y [B, T, H, N], and the states kept [B, H, T / CHUNK, N, N] before
    each chunk.
    """
    steps, heads = r.shape[1], r.shape[2]
    S = np.zeros((SIZE, SIZE), np.float32)
    removed = np.zeros(SIZE, np.float32)
    for job in range(first, last):
        row, head = job // heads, job % heads
        S[:] = np.float32(0)
        for t in range(steps):
            if t % CHUNK == 0:
                kept[row, head, t // CHUNK] = S
            _step(
                S,
                w[row, t, head],
                k[row, t, head],
                v[row, t, head],
                a[row, t, head],
                b[row, t, head],
                removed,
            )
            query, out = r[row, t, head], y[row, t, head]
            for i in range(SIZE):
                total = np.float32(0)
                for j in range(SIZE):
                    total += S[i, j] * query[j]
                out[i] = total


@_jit
def _backward(first, last, r, w, k, v, a, b, kept, dy, dr, dw, dk, dv, da, db):
    """Gradients of `_forward`, the states of a chunk recomputed from the one kept before it."""
    steps, heads = r.shape[1], r.shape[2]
    G = np.zeros((SIZE, SIZE), np.float32)
    states = np.zeros((CHUNK + 1, SIZE, SIZE), np.float32)
    removed = np.zeros((CHUNK, SIZE), np.float32)
    for job in range(first, last):
        row, head = job // heads, job % heads
        G[:] = np.float32(0)
        for chunk in range((steps + CHUNK - 1) // CHUNK - 1, -1, -1):
            start, stop = chunk * CHUNK, min(steps, (chunk + 1) * CHUNK)
            states[0] = kept[row, head, chunk]
            for t in range(start, stop):
                states[t - start + 1] = states[t - start]
                _step(
                    states[t - start + 1],
                    w[row, t, head],
                    k[row, t, head],
                    v[row, t, head],
                    a[row, t, head],
                    b[row, t, head],
                    removed[t - start],
                )
            for t in range(stop - 1, start - 1, -1):
                _step_back(
                    G,
                    states[t - start],
                    states[t - start + 1],
                    removed[t - start],
                    r[row, t, head],
                    w[row, t, head],
                    k[row, t, head],
                    v[row, t, head],
                    a[row, t, head],
                    b[row, t, head],
                    dy[row, t, head],
                    dr[row, t, head],
                    dw[row, t, head],
                    dk[row, t, head],
                    dv[row, t, head],
                    da[row, t, head],
                    db[row, t, head],
                )


@_jit
def _step_back(G, before, after, removed, r, w, k, v, a, b, dy, dr, dw, dk, dv, da, db):
    """One step back: G [N, N] is the gradient of the state after it on entry, of the state before it on
    return.
    """
    for j in range(SIZE):
        dr[j] = dw[j] = dk[j] = da[j] = db[j] = np.float32(0)
    for i in range(SIZE):
        g, old, new = G[i], before[i], after[i]
        yi, vi, si = dy[i], v[i], removed[i]
        value, erase = np.float32(0), np.float32(0)
        for j in range(SIZE):
            x = g[j] + yi * r[j]
            g[j] = x
            dr[j] += yi * new[j]
            value += x * k[j]
            erase += x * b[j]
            dk[j] += x * vi
            db[j] += x * si
            dw[j] += x * old[j]
        dv[i] = value
        for j in range(SIZE):
            da[j] += erase * old[j]
            g[j] = g[j] * w[j] + erase * a[j]


def _shared(function: Any, jobs: int, *arrays: np.ndarray) -> None:
    """Run a kernel over all jobs, an equal part on each of torch's threads."""
    threads = min(jobs, torch.get_num_threads())
    if threads == 1:
        return function(0, jobs, *arrays)
    bounds = [jobs * i // threads for i in range(threads + 1)]
    futures = [_pool.submit(function, lo, hi, *arrays) for lo, hi in zip(bounds, bounds[1:], strict=False)]
    for future in futures:
        future.result()


class Recurrence(torch.autograd.Function):
    """y = recurrence(r, w, k, v, a, b), all [B, T, H, N] float32; every row starts from an empty state."""

    @staticmethod
    def forward(ctx: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """y [B, T, H, N]."""
        arrays = [x.detach().float().cpu().contiguous().numpy() for x in inputs]
        rows, steps, heads, size = arrays[0].shape
        y = np.empty_like(arrays[0])
        kept = np.empty((rows, heads, (steps + CHUNK - 1) // CHUNK, size, size), np.float32)
        _shared(_forward, rows * heads, *arrays, y, kept)
        ctx.kept = (arrays, kept)
        return torch.from_numpy(y).to(inputs[0].device)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        """Gradients in the order of the inputs."""
        arrays, kept = ctx.kept
        gradients = [np.empty_like(arrays[0]) for _ in range(6)]
        _shared(
            _backward,
            arrays[0].shape[0] * arrays[0].shape[2],
            *arrays,
            kept,
            dy.float().cpu().contiguous().numpy(),
            *gradients,
        )
        return tuple(torch.from_numpy(g).to(dy.device) for g in gradients)
