"""RWKV-7 "Goose": the generalised delta rule.

Source: BlinkDL/RWKV-LM@524481d, RWKV-v7/rwkv_v7_numpy.py and rwkv_v7_demo.py.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rwkv_engine.errors import WrongShape
from rwkv_engine.families import program
from rwkv_engine.families.ends import Ends, prepare_ends
from rwkv_engine.families.family import ATT_PREV, FFN_PREV, Family, tails, zeros
from rwkv_engine.families.heads import HEAD_TOKENS, each_head, heads_planes, one_head
from rwkv_engine.families.loader import Loader, layers_of, matrix_shape
from rwkv_engine.families.passes import plane
from rwkv_engine.families.program import of
from rwkv_engine.kernels._jit import kernel
from rwkv_engine.kernels.activations import exp, sigmoid
from rwkv_engine.kernels.lanes import barrier
from rwkv_engine.kernels.matmul import ADD, RELU2, SIGMOID, STORE, TANH, expand, matmul
from rwkv_engine.kernels.mix import keep_last, mixed_inputs
from rwkv_engine.kernels.norm import GROUP_EPSILON, layer_norm
from rwkv_engine.kernels.pointers import address_of, matrix
from rwkv_engine.kernels.wkv import wkv7_head
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor

#: the strongest decay of a channel for one token: w = exp(-e^-0.5 sigmoid(.)), so w > 0.545
_DECAY = np.float32(-0.606531)
R, W, K, V, A, G = range(6)


class Weights(NamedTuple):
    """Read only.

    Vectors [L, C] float32; matrices in the model's format, low-rank pairs in the checkpoint's own.
    """

    ends: Ends
    ln1: np.ndarray
    ln2: np.ndarray
    ln_x: np.ndarray
    att_mix: np.ndarray
    ffn_mix: np.ndarray
    w0: np.ndarray
    a0: np.ndarray
    v0: np.ndarray
    k_k: np.ndarray
    k_a: np.ndarray
    r_k: np.ndarray
    heads: int
    w1: Any
    w2: Any
    a1: Any
    a2: Any
    v1: Any
    v2: Any
    g1: Any
    g2: Any
    receptance: Any
    key: Any
    value: Any
    output: Any
    ffn_key: Any
    ffn_value: Any


class Scratch(NamedTuple):
    """Work arrays for up to T tokens; every layer overwrites them. v_first is the value of layer 0."""

    x: np.ndarray
    h: np.ndarray
    mixed: np.ndarray
    r: np.ndarray
    k: np.ndarray
    v: np.ndarray
    v_first: np.ndarray
    w: np.ndarray
    a: np.ndarray
    vv: np.ndarray
    g: np.ndarray
    out: np.ndarray
    f: np.ndarray


def marks(tensors: Mapping[str, Tensor]) -> bool:
    """Only RWKV-7 has the bonus weights r_k."""
    return "blocks.0.att.r_k" in tensors


def infer(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Sizes from the shapes of the embedding, r_k and the channel mix."""
    vocab, width = matrix_shape(tensors, "emb.weight")
    heads, size = matrix_shape(tensors, "blocks.0.att.r_k")
    if heads * size != width:
        raise WrongShape(
            f"tensor blocks.0.att.r_k: got shape {[heads, size]}, want heads x head size = width {width}"
        )
    ffn, _ = matrix_shape(tensors, "blocks.0.ffn.key.weight")
    return ModelConfig("v7", "7", layers_of(tensors), width, heads, size, ffn, vocab)


def prepare(load: Loader, config: ModelConfig) -> Weights:
    """Stack, check and format the tensors. Layer 0 has no value residual: its v0, v1, v2 are not read."""
    c, h = config.width, config.heads
    later = config.layers > 1
    v0 = [load.vector(f"blocks.{n}.att.v0", c) for n in range(1, config.layers)]
    ends = prepare_ends(load, config)
    value_pair = "att.v" if later else "att.a"
    w2, a2, g2, v2 = load.low_rank_out(
        [("att.w2", 0), ("att.a2", 0), ("att.g2", 0), (f"{value_pair}2", int(later))], c, h
    )
    weights = Weights(
        ends=ends,
        ln1=load.norms("ln1", c),
        ln2=load.norms("ln2", c),
        ln_x=load.norms("att.ln_x", c),
        att_mix=load.mixes([f"att.x_{letter}" for letter in "rwkvag"], c),
        ffn_mix=load.mixes(["ffn.x_k"], c),
        w0=load.vectors("att.w0", c),
        a0=load.vectors("att.a0", c),
        v0=np.stack([np.zeros(c, np.float32), *v0]),
        k_k=load.vectors("att.k_k", c),
        k_a=load.vectors("att.k_a", c),
        r_k=load.vectors("att.r_k", c),
        heads=h,
        w1=load.low_rank_in("att.w1", c),
        w2=w2,
        a1=load.low_rank_in("att.a1", c),
        a2=a2,
        v1=load.low_rank_in(f"{value_pair}1", c, first=later),
        v2=v2,
        g1=load.low_rank_in("att.g1", c),
        g2=g2,
        receptance=load.matrices("att.receptance.weight", c, c),
        key=load.matrices("att.key.weight", c, c),
        value=load.matrices("att.value.weight", c, c),
        output=load.matrices("att.output.weight", c, c),
        ffn_key=load.matrices("ffn.key.weight", config.ffn, c),
        ffn_value=load.matrices("ffn.value.weight", c, config.ffn),
    )
    for name, first, second in (
        ("w", weights.w1, weights.w2),
        ("a", weights.a1, weights.a2),
        ("g", weights.g1, weights.g2),
    ):
        load.same_rank(name, first.rows, second.rank)
    load.same_rank("v", weights.v1.rows, v2.rank)
    return weights


def scratch(config: ModelConfig, weights: Weights, tokens: int) -> Scratch:
    """Work arrays for calls of up to `tokens` tokens."""
    t, c = tokens, config.width
    ranks = (weights.w1.rows, weights.a1.rows, weights.v1.rows, weights.g1.rows)
    w, a, vv, g = (zeros(t, rank) for rank in ranks)
    r, k, v, v_first = (zeros(t, c) for _ in range(4))
    return Scratch(
        zeros(t, c),
        zeros(t, c),
        zeros(6, t, c),
        r,
        k,
        v,
        v_first,
        w,
        a,
        vv,
        g,
        zeros(t, c),
        zeros(t, config.ffn),
    )


@of(Weights, program.time_mix)
def time_mix(lane, w, s, layer, x, now):
    """x [T, C] += the layer's time mix."""
    tokens, place = x.shape[0], plane(now, ATT_PREV, layer)
    own = mixed_inputs(lane, s.h, s.mixed, x, w.ln1[layer], w.att_mix[layer], now, place)
    last = own + tokens
    h = s.h[own:last]
    matmul(lane, 0, s.r[:tokens], w.receptance, layer, s.mixed[R][own:last], STORE)
    matmul(lane, 1, s.k[:tokens], w.key, layer, s.mixed[K][own:last], STORE)
    matmul(lane, 2, s.v[:tokens], w.value, layer, s.mixed[V][own:last], STORE)
    matmul(lane, 3, s.w[:tokens], w.w1, layer, s.mixed[W][own:last], TANH)
    matmul(lane, 4, s.a[:tokens], w.a1, layer, s.mixed[A][own:last], STORE)
    matmul(lane, 5, s.g[:tokens], w.g1, layer, s.mixed[G][own:last], SIGMOID)
    if layer > 0:
        matmul(lane, 6, s.vv[:tokens], w.v1, layer - 1, s.mixed[V][own:last], STORE)
    barrier(lane)
    keep_last(lane, h, now, place)
    each_head(lane, w, s, layer, now)
    matmul(lane, 0, x, w.output, layer, s.out[:tokens], ADD)
    barrier(lane)


@of(Weights, one_head)
def mix_head(lane, w, s, layer, head, memory, first, last):
    """One head, tokens [first, last): low-rank pairs, inputs of the recurrence, recurrence, norm and gate.

    Each step runs for all tokens before the next one starts; only the recurrence is sequential.
    """
    size, tokens, room = memory.shape[0], last - first, address_of(lane.room)
    lo, hi, part = head * size, (head + 1) * size, HEAD_TOKENS * size * 4
    decay, rate = matrix(room, tokens, size), matrix(room + part, tokens, size)
    gate, mixing = matrix(room + 2 * part, tokens, size), matrix(room + 3 * part, tokens, size)
    removed, added = matrix(room + 4 * part, tokens, size), matrix(room + 5 * part, tokens, size)
    key = matrix(room + 6 * part, tokens, size)
    expand(decay, w.w2, layer, head, s.w[first:last])
    expand(rate, w.a2, layer, head, s.a[first:last])
    expand(gate, w.g2, layer, head, s.g[first:last])
    if layer > 0:
        expand(mixing, w.v2, layer, head, s.vv[first:last])
    for i in range(tokens):
        k, v, v_first = s.k[first + i, lo:hi], s.v[first + i, lo:hi], s.v_first[first + i, lo:hi]
        mix_value(v, v_first, w.v0[layer, lo:hi], mixing[i], layer)
        set_rates(decay[i], rate[i], w.w0[layer, lo:hi], w.a0[layer, lo:hi])
        set_keys(removed[i], added[i], key[i], k, rate[i], w.k_k[layer, lo:hi], w.k_a[layer, lo:hi])
    for i in range(tokens):
        r, v, y = s.r[first + i, lo:hi], s.v[first + i, lo:hi], s.out[first + i, lo:hi]
        wkv7_head(memory, r, decay[i], key[i], v, removed[i], added[i], y)
    for i in range(tokens):
        r, v, y = s.r[first + i, lo:hi], s.v[first + i, lo:hi], s.out[first + i, lo:hi]
        layer_norm(y, y, w.ln_x[layer, 0, lo:hi], w.ln_x[layer, 1, lo:hi], GROUP_EPSILON)
        add_bonus(y, r, key[i], w.r_k[layer, lo:hi], v, gate[i])


@kernel
def mix_value(v, first, v0, mixing, layer):
    """The value residual, all [N]: v moves towards the value of layer 0, which is kept in `first`."""
    if layer == 0:
        for j in range(v.shape[0]):
            first[j] = v[j]
    else:
        for j in range(v.shape[0]):
            v[j] += (first[j] - v[j]) * sigmoid(v0[j] + mixing[j])


@kernel
def set_rates(decay, rate, w0, a0):
    """The decay w and the in-context learning rate a, all [N], from their low-rank parts (in place)."""
    for j in range(decay.shape[0]):
        decay[j] = exp(_DECAY * sigmoid(w0[j] + decay[j]))
    for j in range(rate.shape[0]):
        rate[j] = sigmoid(a0[j] + rate[j])


@kernel
def set_keys(removed, added, key, k, rate, k_k, k_a):
    """Keys of the recurrence, all [N]: a = -kk and b = kk * rate, with kk = k * k_k normalised; and key k."""
    square = np.float32(0)
    for j in range(k.shape[0]):
        removed[j] = k[j] * k_k[j]
        square += removed[j] * removed[j]
    scale = np.float32(-1) / max(np.sqrt(square), np.float32(1e-12))
    for j in range(k.shape[0]):
        removed[j] *= scale
        added[j] = -removed[j] * rate[j]
    for j in range(k.shape[0]):
        key[j] = k[j] * (np.float32(1) + (rate[j] - np.float32(1)) * k_a[j])


@kernel
def add_bonus(y, r, key, r_k, v, gate):
    """y [N] <- (y + (r . key r_k) v) gate, all [N]."""
    bonus = np.float32(0)
    for j in range(y.shape[0]):
        bonus += r[j] * key[j] * r_k[j]
    for j in range(y.shape[0]):
        y[j] = (y[j] + bonus * v[j]) * gate[j]


@of(Weights, program.channel_mix)
def channel_mix(lane, w, s, layer, x, now):
    """x [T, C] += V relu(K shift(x))^2."""
    tokens, place = x.shape[0], plane(now, FFN_PREV, layer)
    own = mixed_inputs(lane, s.h, s.mixed, x, w.ln2[layer], w.ffn_mix[layer], now, place)
    last = own + tokens
    h = s.h[own:last]
    matmul(lane, 0, s.f[:tokens], w.ffn_key, layer, s.mixed[0][own:last], RELU2)
    barrier(lane)
    keep_last(lane, h, now, place)
    matmul(lane, 0, x, w.ffn_value, layer, s.f[:tokens], ADD)
    barrier(lane)


READS = tails(
    "ln1 ln2 att.ln_x",
    "att.receptance att.key att.value att.output ffn.key ffn.value",
    "att.x_r att.x_w att.x_k att.x_v att.x_a att.x_g att.w0 att.w1 att.w2 att.a0 att.a1 att.a2 att.v0 att.v1 att.v2 att.g1 att.g2 "
    "att.k_k att.k_a att.r_k ffn.x_k",
)
FAMILY = Family("v7", marks, infer, heads_planes, prepare, scratch, READS)
