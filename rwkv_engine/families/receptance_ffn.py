"""The channel mix of v4, v5 and v6: a squared-ReLU layer with a receptance gate. v7 has no gate."""

from rwkv_engine.families.family import FFN_PREV
from rwkv_engine.families.passes import plane
from rwkv_engine.kernels.lanes import barrier, share
from rwkv_engine.kernels.matmul import RELU2, SIGMOID, STORE, matmul
from rwkv_engine.kernels.mix import keep_last, mixed_inputs

K, R = range(2)


def receptance_channel_mix(lane, w, s, layer, x, now):
    """x [T, C] += sigmoid(R xr) * V relu(K xk)^2; each family registers it for its Weights."""
    tokens, width, place = x.shape[0], x.shape[1], plane(now, FFN_PREV, layer)
    own = mixed_inputs(lane, s.h, s.mixed, x, w.ln2[layer], w.ffn_mix[layer], now, place)
    last = own + tokens
    h = s.h[own:last]
    matmul(lane, 0, s.f[:tokens], w.ffn_key, layer, s.mixed[K][own:last], RELU2)
    matmul(lane, 1, s.r[:tokens], w.ffn_receptance, layer, s.mixed[R][own:last], SIGMOID)
    barrier(lane)
    keep_last(lane, h, now, place)
    matmul(lane, 0, s.out[:tokens], w.ffn_value, layer, s.f[:tokens], STORE)
    barrier(lane)
    start, stop = share(lane, tokens)
    for t in range(start, stop):
        for c in range(width):
            x[t, c] += s.r[t, c] * s.out[t, c]
    barrier(lane)
