"""RWKV-5.0, 5.1 and 5.2.

Source: BlinkDL/ChatRWKV@965e40b, rwkv_pip_package/src/rwkv/model.py, att_one_v5, _v5_1, _v5_2.
"""

import numpy as np

from .common import group_norm, head_state, interpolated, receptance_ffn, run, silu


def _time_mix(eps):
    def time_mix(z, i, x, state, carried):
        p, previous = f"blocks.{i}.att.", state["att_prev"][i].copy()
        state["att_prev"][i] = x
        S = state["wkv"][i]
        heads, n, _ = S.shape
        r = (z[p + "receptance.weight"] @ interpolated(z, p, "r", x, previous)).reshape(heads, n)
        k = (z[p + "key.weight"] @ interpolated(z, p, "k", x, previous)).reshape(heads, n)
        v = (z[p + "value.weight"] @ interpolated(z, p, "v", x, previous)).reshape(heads, n)
        w = np.exp(-np.exp(z[p + "time_decay"].reshape(heads, -1)))[:, :, None]
        first = z[p + "time_faaaa"] if p + "time_faaaa" in z else np.exp(z[p + "time_first"])
        kv = k[:, :, None] * v[:, None, :]
        y = np.einsum("hk,hkv->hv", r, first.reshape(heads, -1)[:, :, None] * kv + S).reshape(-1)
        state["wkv"][i] = kv + w * S
        y = group_norm(z, p + "ln_x", y, heads, eps)
        if p + "gate.weight" in z:
            y = y * silu(z[p + "gate.weight"] @ interpolated(z, p, "g", x, previous))
        return z[p + "output.weight"] @ y

    return time_mix


def forward(z, tokens, state, group_norm_eps):
    state = state or head_state(z, len(z["blocks.0.att.time_decay"]))
    return run(z, tokens, state, _time_mix(group_norm_eps), receptance_ffn(interpolated))
