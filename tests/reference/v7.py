"""RWKV-7. Source: BlinkDL/RWKV-LM@524481d, RWKV-v7/rwkv_v7_numpy.py and rwkv_v7_demo.py."""

import numpy as np

from .common import group_norm, head_state, run, sigmoid


def time_mix(eps):
    def mix(z, i, x, state, carried):
        p, previous = f"blocks.{i}.att.", state["att_prev"][i].copy()
        state["att_prev"][i] = x
        S = state["wkv"][i].transpose(0, 2, 1)  # [H, value, key], as BlinkDL writes it
        heads, n, _ = S.shape
        xr, xw, xk, xv, xa, xg = (x + (previous - x) * z[f"{p}x_{letter}"].reshape(-1) for letter in "rwkvag")
        r, k, v = (z[f"{p}{name}.weight"] @ m for name, m in (("receptance", xr), ("key", xk), ("value", xv)))
        w = np.exp(-0.606531 * sigmoid(z[p + "w0"].reshape(-1) + np.tanh(xw @ z[p + "w1"]) @ z[p + "w2"]))
        a = sigmoid(z[p + "a0"].reshape(-1) + xa @ z[p + "a1"] @ z[p + "a2"])
        g = sigmoid(xg @ z[p + "g1"]) @ z[p + "g2"]
        kk = (k * z[p + "k_k"].reshape(-1)).reshape(heads, n)
        kk = kk / np.maximum(np.linalg.norm(kk, axis=1, keepdims=True), 1e-12)
        k = k * (1 + (a - 1) * z[p + "k_a"].reshape(-1))
        if i == 0:
            carried["v_first"] = v
        else:
            v = v + (carried["v_first"] - v) * sigmoid(
                z[p + "v0"].reshape(-1) + xv @ z[p + "v1"] @ z[p + "v2"]
            )
        r, w, k, v, a = (m.reshape(heads, n) for m in (r, w, k, v, a))
        S = (
            S * w[:, None, :]
            - np.einsum("hij,hj->hi", S, kk)[:, :, None] * (kk * a)[:, None, :]
            + v[:, :, None] * k[:, None, :]
        )
        state["wkv"][i] = S.transpose(0, 2, 1)
        y = group_norm(z, p + "ln_x", np.einsum("hij,hj->hi", S, r).reshape(-1), heads, eps)
        bonus = (r * k * z[p + "r_k"].reshape(heads, n)).sum(1, keepdims=True) * v
        return z[p + "output.weight"] @ ((y + bonus.reshape(-1)) * g)

    return mix


def _channel_mix(z, i, x, state, carried):
    p, previous = f"blocks.{i}.ffn.", state["ffn_prev"][i].copy()
    state["ffn_prev"][i] = x
    k = z[p + "key.weight"] @ (x + (previous - x) * z[p + "x_k"].reshape(-1))
    return z[p + "value.weight"] @ np.maximum(k, 0) ** 2


def forward(z, tokens, state, group_norm_eps):
    state = state or head_state(z, len(z["blocks.0.att.r_k"]))
    return run(z, tokens, state, time_mix(group_norm_eps), _channel_mix)
