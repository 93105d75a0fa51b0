"""RWKV-6 "Finch": token shift and decay depend on the data.

Source: BlinkDL/ChatRWKV@965e40b, rwkv_pip_package, att_one_v6, ffn_one_v6.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rwkv_engine.errors import WrongShape
from rwkv_engine.families import program
from rwkv_engine.families.ends import Ends, prepare_ends
from rwkv_engine.families.family import ATT_PREV, Family, tails, zeros
from rwkv_engine.families.heads import each_head, heads_planes, one_head
from rwkv_engine.families.loader import Loader, cut, find, layers_of, matrix_shape
from rwkv_engine.families.passes import plane
from rwkv_engine.families.program import of
from rwkv_engine.families.receptance_ffn import receptance_channel_mix
from rwkv_engine.kernels._jit import kernel
from rwkv_engine.kernels.activations import exp
from rwkv_engine.kernels.lanes import barrier, take
from rwkv_engine.kernels.matmul import ADD, SILU, STORE, TANH, expand, matmul
from rwkv_engine.kernels.mix import keep_last, mixed_inputs, previous
from rwkv_engine.kernels.norm import GROUP_EPSILON, layer_norm
from rwkv_engine.kernels.pointers import address_of, matrix
from rwkv_engine.kernels.wkv import wkv6_head
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor

#: the order of the five mixed inputs, here and in the checkpoint's low-rank pair
W, K, V, R, G = range(5)


class Weights(NamedTuple):
    """Read only.

    Vectors [L, C] float32; matrices in the model's format, low-rank pairs in the checkpoint's own.
    maa_x [L, 1, C] mixes the input of the low-rank pair (maa_w1, five maa_w2), whose result is added to
    maa [L, 5, C].
    """

    ends: Ends
    ln1: np.ndarray
    ln2: np.ndarray
    ln_x: np.ndarray
    maa_x: np.ndarray
    maa: np.ndarray
    ffn_mix: np.ndarray
    decay: np.ndarray
    first: np.ndarray
    heads: int
    maa_w1: Any
    maa_w2: Any
    decay_w1: Any
    decay_w2: Any
    key: Any
    value: Any
    receptance: Any
    gate: Any
    output: Any
    ffn_key: Any
    ffn_receptance: Any
    ffn_value: Any


class Scratch(NamedTuple):
    """Work arrays for up to T tokens; every layer overwrites them."""

    x: np.ndarray
    h: np.ndarray
    mixed: np.ndarray
    low: np.ndarray
    w: np.ndarray
    k: np.ndarray
    v: np.ndarray
    r: np.ndarray
    g: np.ndarray
    out: np.ndarray
    f: np.ndarray


def marks(tensors: Mapping[str, Tensor]) -> bool:
    """Only RWKV-6 has time_maa_x."""
    return "blocks.0.att.time_maa_x" in tensors


def infer(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Sizes from the shapes of the embedding, time_faaaa and the channel mix."""
    vocab, width = matrix_shape(tensors, "emb.weight")
    heads, size = matrix_shape(tensors, "blocks.0.att.time_faaaa")
    if heads * size != width:
        raise WrongShape(
            f"tensor blocks.0.att.time_faaaa: got shape {[heads, size]}, want heads x head size = width {width}"
        )
    ffn, _ = matrix_shape(tensors, "blocks.0.ffn.key.weight")
    return ModelConfig("v6", "6", layers_of(tensors), width, heads, size, ffn, vocab)


def prepare(load: Loader, config: ModelConfig) -> Weights:
    """Stack, check and format the tensors."""
    c, h = config.width, config.heads
    weights = Weights(
        ends=prepare_ends(load, config),
        ln1=load.norms("ln1", c),
        ln2=load.norms("ln2", c),
        ln_x=load.norms("att.ln_x", c),
        maa_x=load.mixes(["att.time_maa_x"], c),
        maa=load.mixes([f"att.time_maa_{letter}" for letter in "wkvrg"], c),
        ffn_mix=load.mixes(["ffn.time_maa_k", "ffn.time_maa_r"], c),
        decay=load.vectors("att.time_decay", c),
        first=load.vectors("att.time_faaaa", c),
        heads=h,
        maa_w1=load.low_rank_in("att.time_maa_w1", c),
        maa_w2=tuple(load.heads([_five(load, n, c) for n in range(config.layers)], h)),
        decay_w1=load.low_rank_in("att.time_decay_w1", c),
        decay_w2=load.low_rank_out([("att.time_decay_w2", 0)], c, h)[0],
        key=load.matrices("att.key.weight", c, c),
        value=load.matrices("att.value.weight", c, c),
        receptance=load.matrices("att.receptance.weight", c, c),
        gate=load.matrices("att.gate.weight", c, c),
        output=load.matrices("att.output.weight", c, c),
        ffn_key=load.matrices("ffn.key.weight", config.ffn, c),
        ffn_receptance=load.matrices("ffn.receptance.weight", c, c),
        ffn_value=load.matrices("ffn.value.weight", c, config.ffn),
    )
    load.same_rank("time_maa", weights.maa_w1.rows, weights.maa_w2[0].rank * 5)
    load.same_rank("time_decay", weights.decay_w1.rows, weights.decay_w2.rank)
    return weights


def _five(load: Loader, layer: int, width: int) -> list[Tensor]:
    """The five second halves [R, C] of time_maa_w2 [5, R, C]."""
    tensor = find(load.tensors, f"blocks.{layer}.att.time_maa_w2")
    if len(tensor.shape) != 3 or tensor.shape[0] != 5 or tensor.shape[2] != width:
        raise WrongShape(f"tensor {tensor.name}: got shape {list(tensor.shape)}, want [5, rank, {width}]")
    return [cut(tensor, i) for i in range(5)]


def scratch(config: ModelConfig, weights: Weights, tokens: int) -> Scratch:
    """Work arrays for calls of up to `tokens` tokens."""
    t, c = tokens, config.width
    low, w = zeros(t, weights.maa_w1.rows), zeros(t, weights.decay_w1.rows)
    k, v, r, g, out = (zeros(t, c) for _ in range(5))
    return Scratch(zeros(t, c), zeros(t, c), zeros(5, t, c), low, w, k, v, r, g, out, zeros(t, config.ffn))


@of(Weights, program.time_mix)
def time_mix(lane, w, s, layer, x, now):
    """x [T, C] += the layer's time mix."""
    tokens, place = x.shape[0], plane(now, ATT_PREV, layer)
    own = mixed_inputs(lane, s.h, s.mixed, x, w.ln1[layer], w.maa_x[layer], now, place)
    last = own + tokens
    h = s.h[own:last]
    matmul(lane, 0, s.low[:tokens], w.maa_w1, layer, s.mixed[0][own:last], TANH)
    barrier(lane)
    mix_by_data(lane, w, s, layer, s.mixed, h, now, place)
    barrier(lane)
    matmul(lane, 0, s.k[:tokens], w.key, layer, s.mixed[K][:tokens], STORE)
    matmul(lane, 1, s.v[:tokens], w.value, layer, s.mixed[V][:tokens], STORE)
    matmul(lane, 2, s.r[:tokens], w.receptance, layer, s.mixed[R][:tokens], STORE)
    matmul(lane, 3, s.g[:tokens], w.gate, layer, s.mixed[G][:tokens], SILU)
    matmul(lane, 4, s.w[:tokens], w.decay_w1, layer, s.mixed[W][:tokens], TANH)
    keep_last(lane, h, now, place)
    barrier(lane)
    each_head(lane, w, s, layer, now)
    matmul(lane, 0, x, w.output, layer, s.out[:tokens], ADD)
    barrier(lane)


@kernel
def mix_by_data(lane, w, s, layer, mixed, h, now, place):
    """mixed [5, T, C] <- h + (previous - h) * (maa + low-rank part), head by head."""
    size, rank = h.shape[1] // w.heads, w.maa_w1.rows // 5
    head = take(lane, 1, w.heads, -1)
    while head < w.heads:
        lo = head * size
        for b in range(now.states.shape[0]):
            start, stop = now.spans[b], now.spans[b + 1]
            for m in range(5):
                extra = mixed[m, start:stop, lo : lo + size]
                expand(extra, w.maa_w2[m], layer, head, s.low[start:stop, m * rank : (m + 1) * rank])
                for t in range(start, stop):
                    before = previous(h, t, start, now.states[b], place)
                    for c in range(lo, lo + size):
                        share = w.maa[layer, m, c] + mixed[m, t, c]
                        mixed[m, t, c] = h[t, c] + (before[c] - h[t, c]) * share
        head = take(lane, 1, w.heads, head)


@of(Weights, one_head)
def mix_head(lane, w, s, layer, head, memory, first, last):
    """One head, tokens [first, last): all decays first; then, per token, recurrence, group norm and gate."""
    size = memory.shape[0]
    lo, hi = head * size, (head + 1) * size
    decays = matrix(address_of(lane.room), last - first, size)
    expand(decays, w.decay_w2, layer, head, s.w[first:last])
    for t in range(first, last):
        decay, y = decays[t - first], s.out[t, lo:hi]
        for c in range(size):
            decay[c] = exp(-exp(w.decay[layer, lo + c] + decay[c]))
        wkv6_head(memory, s.r[t, lo:hi], s.k[t, lo:hi], s.v[t, lo:hi], w.first[layer, lo:hi], decay, y)
        layer_norm(y, y, w.ln_x[layer, 0, lo:hi], w.ln_x[layer, 1, lo:hi], GROUP_EPSILON)
        for c in range(size):
            y[c] *= s.g[t, lo + c]


of(Weights, program.channel_mix)(receptance_channel_mix)

READS = tails(
    "ln1 ln2 att.ln_x",
    "att.receptance att.key att.value att.output ffn.key ffn.value ffn.receptance att.gate",
    "att.time_maa_x att.time_maa_w att.time_maa_k att.time_maa_v att.time_maa_r att.time_maa_g att.time_maa_w1 att.time_maa_w2 "
    "att.time_decay att.time_decay_w1 att.time_decay_w2 att.time_faaaa ffn.time_maa_k ffn.time_maa_r",
)
FAMILY = Family("v6", marks, infer, heads_planes, prepare, scratch, READS)
