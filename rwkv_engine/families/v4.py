"""RWKV-4 "Dove": a running weighted average per channel.

Source: BlinkDL/ChatRWKV@965e40b, rwkv_pip_package, att_one and ffn_one.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rwkv_engine.families import program
from rwkv_engine.families.ends import Ends, prepare_ends
from rwkv_engine.families.family import ATT_PREV, Family, tails, zeros
from rwkv_engine.families.loader import Loader, layers_of, matrix_shape
from rwkv_engine.families.passes import copied, plane
from rwkv_engine.families.program import of
from rwkv_engine.families.receptance_ffn import receptance_channel_mix
from rwkv_engine.kernels.lanes import barrier, share
from rwkv_engine.kernels.matmul import ADD, SIGMOID, STORE, matmul
from rwkv_engine.kernels.mix import keep_last, mixed_inputs
from rwkv_engine.kernels.pointers import floats
from rwkv_engine.kernels.wkv import wkv4
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.state import Plane

#: start of the running maximum: e^-1e30 is 0, and sums with it do not overflow
_NOTHING_SEEN = -1e30
K, V, R = range(3)
#: the planes of sums
AA, BB, PP = range(2, 5)


class Weights(NamedTuple):
    """Read only. Vectors [L, C] float32; matrices in the model's format.

    decay  -exp(time_decay).
    first  time_first.
    """

    ends: Ends
    ln1: np.ndarray
    ln2: np.ndarray
    att_mix: np.ndarray
    ffn_mix: np.ndarray
    decay: np.ndarray
    first: np.ndarray
    key: Any
    value: Any
    receptance: Any
    output: Any
    ffn_key: Any
    ffn_receptance: Any
    ffn_value: Any


class Scratch(NamedTuple):
    """Work arrays for up to T tokens; every layer overwrites them."""

    x: np.ndarray
    h: np.ndarray
    mixed: np.ndarray
    k: np.ndarray
    v: np.ndarray
    r: np.ndarray
    out: np.ndarray
    f: np.ndarray


def marks(tensors: Mapping[str, Tensor]) -> bool:
    """It has time_first and no group norm after the recurrence."""
    return "blocks.0.att.time_first" in tensors and "blocks.0.att.ln_x.weight" not in tensors


def infer(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Sizes from the shapes of the embedding and the channel mix."""
    vocab, width = matrix_shape(tensors, "emb.weight")
    ffn, _ = matrix_shape(tensors, "blocks.0.ffn.key.weight")
    return ModelConfig("v4", "4", layers_of(tensors), width, 1, width, ffn, vocab)


def planes(config: ModelConfig) -> tuple[Plane, ...]:
    """The previous inputs, and the recurrence's numerator, denominator and running maximum."""
    shape = (config.layers, config.width)
    names = ("att_prev", "ffn_prev", "aa", "bb")
    return (*(Plane(name, shape) for name in names), Plane("pp", shape, _NOTHING_SEEN))


def prepare(load: Loader, config: ModelConfig) -> Weights:
    """Stack, check and format the tensors."""
    c = config.width
    return Weights(
        ends=prepare_ends(load, config),
        ln1=load.norms("ln1", c),
        ln2=load.norms("ln2", c),
        att_mix=load.mixes([f"att.time_mix_{letter}" for letter in "kvr"], c, complement=True),
        ffn_mix=load.mixes(["ffn.time_mix_k", "ffn.time_mix_r"], c, complement=True),
        decay=-np.exp(load.vectors("att.time_decay", c)),
        first=load.vectors("att.time_first", c),
        key=load.matrices("att.key.weight", c, c),
        value=load.matrices("att.value.weight", c, c),
        receptance=load.matrices("att.receptance.weight", c, c),
        output=load.matrices("att.output.weight", c, c),
        ffn_key=load.matrices("ffn.key.weight", config.ffn, c),
        ffn_receptance=load.matrices("ffn.receptance.weight", c, c),
        ffn_value=load.matrices("ffn.value.weight", c, config.ffn),
    )


def scratch(config: ModelConfig, weights: Weights, tokens: int) -> Scratch:
    """Work arrays for calls of up to `tokens` tokens."""
    t, c = tokens, config.width
    k, v, r, out = (zeros(t, c) for _ in range(4))
    return Scratch(zeros(t, c), zeros(t, c), zeros(3, t, c), k, v, r, out, zeros(t, config.ffn))


@of(Weights, program.time_mix)
def time_mix(lane, w, s, layer, x, now):
    """x [T, C] += the layer's time mix; the channels of the recurrence are shared among the lanes."""
    tokens, width, place = x.shape[0], x.shape[1], plane(now, ATT_PREV, layer)
    own = mixed_inputs(lane, s.h, s.mixed, x, w.ln1[layer], w.att_mix[layer], now, place)
    last = own + tokens
    h = s.h[own:last]
    matmul(lane, 0, s.k[:tokens], w.key, layer, s.mixed[K][own:last], STORE)
    matmul(lane, 1, s.v[:tokens], w.value, layer, s.mixed[V][own:last], STORE)
    matmul(lane, 2, s.r[:tokens], w.receptance, layer, s.mixed[R][own:last], SIGMOID)
    barrier(lane)
    keep_last(lane, h, now, place)
    lo, hi = share(lane, width)
    for b in range(now.states.shape[0]):
        aa = floats(now.states[b] + plane(now, AA, layer), width)[lo:hi]
        bb = floats(now.states[b] + plane(now, BB, layer), width)[lo:hi]
        pp = floats(now.states[b] + plane(now, PP, layer), width)[lo:hi]
        for t in range(now.spans[b], now.spans[b + 1]):
            y = s.out[t, lo:hi]
            wkv4(s.k[t, lo:hi], s.v[t, lo:hi], w.first[layer, lo:hi], w.decay[layer, lo:hi], aa, bb, pp, y)
            for c in range(hi - lo):
                y[c] *= s.r[t, lo + c]
            if now.kept[t] != 0:
                for number in (AA, BB, PP):
                    at = plane(now, number, layer) + 4 * lo
                    copied(now.kept[t] + at, now.states[b] + at, hi - lo)
    barrier(lane)
    matmul(lane, 0, x, w.output, layer, s.out[:tokens], ADD)
    barrier(lane)


of(Weights, program.channel_mix)(receptance_channel_mix)

READS = tails(
    "ln1 ln2",
    "att.receptance att.key att.value att.output ffn.key ffn.value ffn.receptance",
    "att.time_mix_k att.time_mix_v att.time_mix_r att.time_decay att.time_first ffn.time_mix_k ffn.time_mix_r",
)
FAMILY = Family("v4", marks, infer, planes, prepare, scratch, READS)
