"""Norm and token shift: the first stage of every time mix and channel mix.

Tokens of B sequences are stored one after another; sequence b has tokens [now.spans[b], now.spans[b+1]). Its
state is one block of float32 at address now.states[b], where the layer's previous normed input [C] starts
after `place` bytes.
"""

from typing import Any

import numpy as np

from rwkv_engine.kernels._jit import kernel, viewing
from rwkv_engine.kernels.lanes import Lane, barrier, share
from rwkv_engine.kernels.norm import EPSILON, layer_norm
from rwkv_engine.kernels.pointers import floats


@viewing
def previous(h: np.ndarray, t: int, first: int, state: int, place: int) -> np.ndarray:
    """[C] normed input of the token before t; the state has it for a sequence's first token."""
    if t == first:
        return floats(state + place, h.shape[1])
    return h[t - 1]


@kernel
def mixed_inputs(
    lane: Lane,
    h: np.ndarray,
    mixed: np.ndarray,
    x: np.ndarray,
    norm: np.ndarray,
    mix: np.ndarray,
    now: Any,
    place: int,
) -> int:
    """h <- layer_norm(x [T, C]); mixed [K or more] <- h shifted by mix [K, C]; returns this lane's first row.

    norm  [2, C] weight, bias.
    The T inputs are in h and mixed[k] from the returned row on. For a single token, every lane computes its
    own copy, in the row of its number, so that none waits. The state is only read here: `keep_last` writes it
    after a barrier, when no lane reads it any more.
    """
    tokens = x.shape[0]
    alone = tokens == 1 and lane.lanes <= h.shape[0]
    own = lane.number if alone else 0
    start, stop = share(lane, tokens)
    if alone:
        start, stop = 0, 1
    for t in range(start, stop):
        layer_norm(h[own + t], x[t], norm[0], norm[1], EPSILON)
    if not alone:
        barrier(lane)
    for b in range(now.states.shape[0]):
        for t in range(max(start, now.spans[b]), min(stop, now.spans[b + 1])):
            before = previous(h, own + t, own + now.spans[b], now.states[b], place)
            shift_token(mixed, own + t, h, before, mix)
    if not alone:
        barrier(lane)
    return own


@kernel
def shift_token(mixed: np.ndarray, t: int, h: np.ndarray, prev: np.ndarray, mix: np.ndarray) -> None:
    """mixed [K or more, T or more, C] at t <- h[t] + (prev - h[t]) * mix [K, C].

    v4 and v5 use x * m + prev * (1 - m): their weights are converted to 1 - m on loading.
    """
    here = h[t]
    for m in range(mix.shape[0]):
        out, weight = mixed[m, t], mix[m]
        for c in range(here.shape[0]):
            out[c] = here[c] + (prev[c] - here[c]) * weight[c]


@kernel
def keep_last(lane: Lane, h: np.ndarray, now: Any, place: int) -> None:
    """Write each sequence's last normed input into its state, and each token's into the block where its state
    is kept.

    Sequences are shared among the lanes.
    """
    start, stop = share(lane, now.states.shape[0])
    for b in range(start, stop):
        if now.spans[b + 1] > now.spans[b]:
            kept, last = floats(now.states[b] + place, h.shape[1]), h[now.spans[b + 1] - 1]
            for c in range(kept.shape[0]):
                kept[c] = last[c]
        for t in range(now.spans[b], now.spans[b + 1]):
            if now.kept[t] != 0:
                kept, last = floats(now.kept[t] + place, h.shape[1]), h[t]
                for c in range(kept.shape[0]):
                    kept[c] = last[c]
