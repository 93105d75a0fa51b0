"""Norm and token shift: the first stage of every time mix and channel mix.

Tokens of B sequences lie one after another; sequence b has tokens [spans[b], spans[b+1]). Its state is one block of
float32 at states[b], in which `offset` says where the layer's previous normed input [C] starts.
"""

from rwkv_engine.kernels._jit import kernel, viewing
from rwkv_engine.kernels.lanes import barrier, share
from rwkv_engine.kernels.norm import EPSILON, layer_norm
from rwkv_engine.kernels.pointers import floats


@viewing
def previous(h, t, first, state, offset):
    """[C] normed input before token t: that of the token before, or what the state kept for a sequence's first token."""
    if t == first:
        return floats(state + offset * 4, h.shape[1])
    return h[t - 1]


@kernel
def mixed_inputs(lane, h, mixed, x, norm, mix, spans, states, offset):
    """The inputs of a mix: h <- layer_norm(x [T, C]) with norm [2, C] (weight, bias), mixed [K or more] <- h shifted by mix [K, C].

    Returns the row of h and of mixed[k] from which on this lane finds its T inputs. A single token is done by every lane for itself, in
    the row of its number, so that none waits for another. The state is only read here:
    `keep_last` writes it behind a barrier, when no lane reads it any more.
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
    for b in range(states.shape[0]):
        for t in range(max(start, spans[b]), min(stop, spans[b + 1])):
            shift_token(mixed, own + t, h, previous(h, own + t, own + spans[b], states[b], offset), mix)
    if not alone:
        barrier(lane)
    return own


@kernel
def shift_token(mixed, t, h, prev, mix):
    """mixed [K or more, T or more, C] at t <- h[t] + (prev - h[t]) * mix [K, C].

    v4 and v5 write x * m + prev * (1 - m): their weights are turned into 1 - m when they are loaded.
    """
    now = h[t]
    for m in range(mix.shape[0]):
        out, weight = mixed[m, t], mix[m]
        for c in range(now.shape[0]):
            out[c] = now[c] + (prev[c] - now[c]) * weight[c]


@kernel
def keep_last(lane, h, spans, states, offset):
    """Write each sequence's last normed input into its state; sequences are shared among the lanes."""
    start, stop = share(lane, states.shape[0])
    for b in range(start, stop):
        if spans[b + 1] > spans[b]:
            kept, last = floats(states[b] + offset * 4, h.shape[1]), h[spans[b + 1] - 1]
            for c in range(kept.shape[0]):
                kept[c] = last[c]
