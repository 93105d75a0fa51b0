"""Norm and token shift: the first stage of every time mix and channel mix.

Tokens of B sequences lie one after another; sequence b has tokens [now.spans[b], now.spans[b+1]). Its state
is one block of float32 at address now.states[b], in which the layer's previous normed input [C] starts after
`place` bytes.
"""

from typing import Any

import numpy as np

from rwkv_engine.kernels._jit import kernel, viewing
from rwkv_engine.kernels.lanes import Lane, barrier, share
from rwkv_engine.kernels.norm import EPSILON, layer_norm
from rwkv_engine.kernels.pointers import floats


@viewing
def previous(h: np.ndarray, t: int, first: int, state: int, place: int) -> np.ndarray:
    """[C] normed input before token t: that of the token before, or what the state kept for a sequence's
    first token.
    """
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
    """The inputs of a mix: h <- layer_norm(x [T, C]) with norm [2, C] (weight, bias), mixed [K or more] <- h
    shifted by mix [K, C].

    Returns the row of h and of mixed[k] from which on this lane finds its T inputs. A single token is done by
    every lane for itself, in the row of its number, so that none waits for another. The state is only read
    here: `keep_last` writes it behind a barrier, when no lane reads it any more.
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

    v4 and v5 write x * m + prev * (1 - m): their weights are turned into 1 - m when they are loaded.
    """
    here = h[t]
    for m in range(mix.shape[0]):
        out, weight = mixed[m, t], mix[m]
        for c in range(here.shape[0]):
            out[c] = here[c] + (prev[c] - here[c]) * weight[c]


@kernel
def keep_last(lane: Lane, h: np.ndarray, now: Any, place: int) -> None:
    """Write each sequence's last normed input into its state, and each token's into the block where its state is kept.

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
