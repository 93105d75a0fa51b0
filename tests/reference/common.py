"""What all families share."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def norm(x, weight, bias, eps=1e-5):
    return (x - x.mean()) / np.sqrt(x.var() + eps) * weight + bias


def layer_norm(z, name, x):
    return norm(x, z[name + ".weight"], z[name + ".bias"])


def group_norm(z, name, x, heads, eps):
    """Each head of x [C] on its own."""
    rows = x.reshape(heads, -1)
    rows = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + eps)
    return rows.reshape(-1) * z[name + ".weight"] + z[name + ".bias"]


def sizes(z):
    """(L, C)."""
    layers = 1 + max(int(name.split(".")[1]) for name in z if name.startswith("blocks."))
    return layers, z["emb.weight"].shape[1]


def run(z, tokens, state, time_mix, channel_mix):
    """Every family's outer loop; the mixes take (z, layer, normed x, state, what the layers of this token
    share).
    """
    layers, _ = sizes(z)
    logits = []
    for token in tokens:
        x = layer_norm(z, "blocks.0.ln0", z["emb.weight"][token])
        carried = {"token": token, "embedded": x}
        for i in range(layers):
            x = x + time_mix(z, i, layer_norm(z, f"blocks.{i}.ln1", x), state, carried)
            x = x + channel_mix(z, i, layer_norm(z, f"blocks.{i}.ln2", x), state, carried)
        logits.append(z["head.weight"] @ layer_norm(z, "ln_out", x))
    return np.array(logits), state


def receptance_ffn(mixed):
    """The channel mix of v4, v5, v6; `mixed(name, x, previous)` is the token shift."""

    def channel_mix(z, i, x, state, carried):
        p, previous = f"blocks.{i}.ffn.", state["ffn_prev"][i].copy()
        state["ffn_prev"][i] = x
        k = z[p + "key.weight"] @ mixed(z, p, "k", x, previous)
        r = sigmoid(z[p + "receptance.weight"] @ mixed(z, p, "r", x, previous))
        return r * (z[p + "value.weight"] @ np.maximum(k, 0) ** 2)

    return channel_mix


def interpolated(z, p, letter, x, previous):
    """v4 and v5: x m + previous (1 - m)."""
    m = z[f"{p}time_mix_{letter}"].reshape(-1)
    return x * m + previous * (1 - m)


def head_state(z, heads):
    """The empty state of v5, v6 and v7."""
    layers, c = sizes(z)
    n = c // heads
    return {
        "att_prev": np.zeros((layers, c)),
        "ffn_prev": np.zeros((layers, c)),
        "wkv": np.zeros((layers, heads, n, n)),
    }
