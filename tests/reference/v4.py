"""RWKV-4. Source: BlinkDL/ChatRWKV@965e40b, rwkv_pip_package/src/rwkv/model.py, att_one and ffn_one."""

import numpy as np

from .common import interpolated, receptance_ffn, run, sigmoid, sizes


def _time_mix(z, i, x, state, carried):
    p, previous = f"blocks.{i}.att.", state["att_prev"][i].copy()
    state["att_prev"][i] = x
    r = sigmoid(z[p + "receptance.weight"] @ interpolated(z, p, "r", x, previous))
    k = z[p + "key.weight"] @ interpolated(z, p, "k", x, previous)
    v = z[p + "value.weight"] @ interpolated(z, p, "v", x, previous)
    u, w = z[p + "time_first"].reshape(-1), -np.exp(z[p + "time_decay"].reshape(-1))
    aa, bb, pp = state["aa"][i], state["bb"][i], state["pp"][i]
    top = np.maximum(pp, u + k)
    a, b = np.exp(pp - top), np.exp(u + k - top)
    wkv = (a * aa + b * v) / (a * bb + b)
    top = np.maximum(pp + w, k)
    a, b = np.exp(pp + w - top), np.exp(k - top)
    state["aa"][i], state["bb"][i], state["pp"][i] = a * aa + b * v, a * bb + b, top
    return z[p + "output.weight"] @ (r * wkv)


def forward(z, tokens, state, group_norm_eps):
    shape = sizes(z)
    if state is None:
        state = {name: np.zeros(shape) for name in ("att_prev", "ffn_prev", "aa", "bb")} | {
            "pp": np.full(shape, -1e30)
        }
    return run(z, tokens, state, _time_mix, receptance_ffn(interpolated))
