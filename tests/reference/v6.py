"""RWKV-6. Source: BlinkDL/ChatRWKV@965e40b, rwkv_pip_package/src/rwkv/model.py, att_one_v6 and ffn_one_v6."""

import numpy as np

from .common import group_norm, head_state, receptance_ffn, run, silu


def _shifted(z, p, letter, x, previous):
    """x + (previous - x) maa."""
    return x + (previous - x) * z[f"{p}time_maa_{letter}"].reshape(-1)


def _time_mix(eps):
    def time_mix(z, i, x, state, carried):
        p, previous = f"blocks.{i}.att.", state["att_prev"][i].copy()
        state["att_prev"][i] = x
        S = state["wkv"][i]
        heads, n, _ = S.shape
        low = np.tanh(_shifted(z, p, "x", x, previous) @ z[p + "time_maa_w1"]).reshape(5, -1)
        extra = np.einsum("mr,mrc->mc", low, z[p + "time_maa_w2"])
        mixed = {
            letter: x + (previous - x) * (z[f"{p}time_maa_{letter}"].reshape(-1) + extra[m])
            for m, letter in enumerate("wkvrg")
        }
        r = (z[p + "receptance.weight"] @ mixed["r"]).reshape(heads, n)
        k = (z[p + "key.weight"] @ mixed["k"]).reshape(heads, n)
        v = (z[p + "value.weight"] @ mixed["v"]).reshape(heads, n)
        g = silu(z[p + "gate.weight"] @ mixed["g"])
        w = (
            z[p + "time_decay"].reshape(-1)
            + np.tanh(mixed["w"] @ z[p + "time_decay_w1"]) @ z[p + "time_decay_w2"]
        )
        w = np.exp(-np.exp(w)).reshape(heads, n, 1)
        kv = k[:, :, None] * v[:, None, :]
        y = np.einsum("hk,hkv->hv", r, z[p + "time_faaaa"].reshape(heads, n, 1) * kv + S).reshape(-1)
        state["wkv"][i] = kv + w * S
        return z[p + "output.weight"] @ (group_norm(z, p + "ln_x", y, heads, eps) * g)

    return time_mix


def forward(z, tokens, state, group_norm_eps):
    state = state or head_state(z, len(z["blocks.0.att.time_faaaa"]))
    return run(z, tokens, state, _time_mix(group_norm_eps), receptance_ffn(_shifted))
