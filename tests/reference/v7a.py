"""RWKV-7a.

Source: BlinkDL/RWKV-LM@524481d, RWKV-v7/rwkv_v7a_demo.py; ChatRWKV@965e40b,
rwkv_pip_package/src/rwkv/model.py.
"""

import numpy as np

from . import v7
from .common import head_state, run


def _channel_mix(z, i, x, state, carried):
    p, previous = f"blocks.{i}.ffn.", state["ffn_prev"][i].copy()
    state["ffn_prev"][i] = x
    rank = z[p + "s1"].shape[1]
    square = z[p + "s_emb.weight"][carried["token"]] + z[p + "s_emb_x.weight"] @ carried["embedded"]
    k = np.maximum(z[p + "key.weight"] @ (x + (previous - x) * z[p + "x_k"].reshape(-1)), 0) ** 2
    scale = (x @ z[p + "s1"]) @ square.reshape(rank, rank) @ z[p + "s2"] + z[p + "s0"].reshape(-1)
    return z[p + "value.weight"] @ (k * scale)


def forward(z, tokens, state, group_norm_eps):
    state = state or head_state(z, len(z["blocks.0.att.r_k"]))
    return run(z, tokens, state, v7.time_mix(group_norm_eps), _channel_mix)
