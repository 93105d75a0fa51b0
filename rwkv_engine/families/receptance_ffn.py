"""The channel mix of v4, v5 and v6: a squared-ReLU layer behind a receptance gate. v7 dropped the gate."""

from rwkv_engine.kernels._jit import kernel
from rwkv_engine.kernels.lanes import barrier, share
from rwkv_engine.kernels.matmul import RELU2, SIGMOID, STORE, matmul
from rwkv_engine.kernels.mix import keep_last, norm_tokens, shift_tokens

K, R = range(2)


@kernel
def channel_mix(lane, w, s, layer, x, spans, states):
    """x [T, C] += sigmoid(R xr) * V relu(K xk)^2. State: ffn_prev [L, C] behind att_prev [L, C]."""
    tokens, width, layers = x.shape[0], x.shape[1], w.ln2.shape[0]
    h, place = s.h[:tokens], (layers + layer) * width
    norm_tokens(lane, h, x, w.ln2[layer])
    if tokens > 1:
        barrier(lane)
    shift_tokens(lane, s.mixed, h, w.ffn_mix[layer], spans, states, place)
    barrier(lane)
    matmul(lane, 0, s.f[:tokens], w.ffn_key, layer, s.mixed[K][:tokens], RELU2)
    matmul(lane, 1, s.r[:tokens], w.ffn_receptance, layer, s.mixed[R][:tokens], SIGMOID)
    keep_last(lane, h, spans, states, place)
    barrier(lane)
    matmul(lane, 0, s.out[:tokens], w.ffn_value, layer, s.f[:tokens], STORE)
    barrier(lane)
    start, stop = share(lane, tokens)
    for t in range(start, stop):
        for c in range(width):
            x[t, c] += s.r[t, c] * s.out[t, c]
    barrier(lane)
