"""RWKV-5 "Eagle" (5.0, 5.1, 5.2): matrix-valued heads with a constant decay.

Source: BlinkDL/ChatRWKV@965e40b, rwkv_pip_package, att_one_v5, att_one_v5_1, att_one_v5_2. The versions
compute the same and differ only in loading: 5.0 and 5.1 have one decay and one bonus per head, which are
repeated for its channels, and 5.0 has no gate.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rwkv_engine.errors import WrongShape
from rwkv_engine.families import program
from rwkv_engine.families.ends import Ends, prepare_ends
from rwkv_engine.families.family import ATT_PREV, Family, tails, zeros
from rwkv_engine.families.heads import each_head, heads_planes, one_head
from rwkv_engine.families.loader import Loader, find, layers_of, matrix_shape
from rwkv_engine.families.passes import plane
from rwkv_engine.families.program import of
from rwkv_engine.families.receptance_ffn import receptance_channel_mix
from rwkv_engine.kernels.lanes import barrier
from rwkv_engine.kernels.matmul import ADD, SILU, STORE, matmul
from rwkv_engine.kernels.mix import keep_last, mixed_inputs
from rwkv_engine.kernels.norm import GROUP_EPSILON, layer_norm
from rwkv_engine.kernels.wkv import wkv6_head
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor

K, V, R, G = range(4)


class Weights(NamedTuple):
    """Read only. Matrices are in the model's format; 5.0 does not use `gate`.

    decay  [L, C] float32: the factor itself, exp(-exp(time_decay)).
    first  [L, C] float32: the bonus of the current token.
    """

    ends: Ends
    ln1: np.ndarray
    ln2: np.ndarray
    ln_x: np.ndarray
    att_mix: np.ndarray
    ffn_mix: np.ndarray
    decay: np.ndarray
    first: np.ndarray
    heads: int
    gated: bool
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
    k: np.ndarray
    v: np.ndarray
    r: np.ndarray
    g: np.ndarray
    out: np.ndarray
    f: np.ndarray


def marks(tensors: Mapping[str, Tensor]) -> bool:
    """It has a group norm after the recurrence, and none of the tensors that are new in v6 and v7."""
    newer = ("blocks.0.att.time_maa_x", "blocks.0.att.r_k")
    return "blocks.0.att.ln_x.weight" in tensors and not any(name in tensors for name in newer)


def infer(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Sizes from shapes. time_decay is [H], [H, 1] or [H, N]; this and the gate determine the version."""
    vocab, width = matrix_shape(tensors, "emb.weight")
    ffn, _ = matrix_shape(tensors, "blocks.0.ffn.key.weight")
    decay = find(tensors, "blocks.0.att.time_decay").shape
    heads = decay[0] if decay else 0
    if heads < 1 or width % heads or len(decay) > 2:
        raise WrongShape(
            f"tensor blocks.0.att.time_decay: got shape {list(decay)}, want a row per head of a model of width {width}"
        )
    version = "5.0" if "blocks.0.att.gate.weight" not in tensors else "5.2" if decay[1:] > (1,) else "5.1"
    return ModelConfig("v5", version, layers_of(tensors), width, heads, width // heads, ffn, vocab)


def prepare(load: Loader, config: ModelConfig) -> Weights:
    """Stack, check and format the tensors; repeat values per head for each of its channels."""
    c, gated = config.width, config.version != "5.0"
    letters = "kvrg" if gated else "kvr"
    bonus = _spread(load, "att.time_faaaa" if gated else "att.time_first", config)
    return Weights(
        ends=prepare_ends(load, config),
        ln1=load.norms("ln1", c),
        ln2=load.norms("ln2", c),
        ln_x=load.norms("att.ln_x", c),
        att_mix=load.mixes([f"att.time_mix_{letter}" for letter in letters], c, complement=True),
        ffn_mix=load.mixes(["ffn.time_mix_k", "ffn.time_mix_r"], c, complement=True),
        decay=np.exp(-np.exp(_spread(load, "att.time_decay", config))),
        first=bonus if gated else np.exp(bonus),
        heads=config.heads,
        gated=gated,
        key=load.matrices("att.key.weight", c, c),
        value=load.matrices("att.value.weight", c, c),
        receptance=load.matrices("att.receptance.weight", c, c),
        gate=load.matrices("att.gate.weight" if gated else "att.receptance.weight", c, c),
        output=load.matrices("att.output.weight", c, c),
        ffn_key=load.matrices("ffn.key.weight", config.ffn, c),
        ffn_receptance=load.matrices("ffn.receptance.weight", c, c),
        ffn_value=load.matrices("ffn.value.weight", c, config.ffn),
    )


def _spread(load: Loader, suffix: str, config: ModelConfig) -> np.ndarray:
    """[L, C] float32 from a tensor with one number per head or per channel."""
    per_head = find(load.tensors, f"blocks.0.{suffix}").shape[1:] in ((), (1,))
    values = load.vectors(suffix, config.heads, 1 if per_head else config.head_size)
    return np.repeat(values, config.head_size if per_head else 1, axis=2).reshape(config.layers, config.width)


def scratch(config: ModelConfig, weights: Weights, tokens: int) -> Scratch:
    """Work arrays for calls of up to `tokens` tokens."""
    t, c = tokens, config.width
    k, v, r, g, out = (zeros(t, c) for _ in range(5))
    return Scratch(zeros(t, c), zeros(t, c), zeros(4, t, c), k, v, r, g, out, zeros(t, config.ffn))


@of(Weights, program.time_mix)
def time_mix(lane, w, s, layer, x, now):
    """x [T, C] += the layer's time mix."""
    tokens, place = x.shape[0], plane(now, ATT_PREV, layer)
    own = mixed_inputs(lane, s.h, s.mixed, x, w.ln1[layer], w.att_mix[layer], now, place)
    last = own + tokens
    h = s.h[own:last]
    matmul(lane, 0, s.k[:tokens], w.key, layer, s.mixed[K][own:last], STORE)
    matmul(lane, 1, s.v[:tokens], w.value, layer, s.mixed[V][own:last], STORE)
    matmul(lane, 2, s.r[:tokens], w.receptance, layer, s.mixed[R][own:last], STORE)
    if w.gated:
        matmul(lane, 3, s.g[:tokens], w.gate, layer, s.mixed[G][own:last], SILU)
    barrier(lane)
    keep_last(lane, h, now, place)
    each_head(lane, w, s, layer, now)
    matmul(lane, 0, x, w.output, layer, s.out[:tokens], ADD)
    barrier(lane)


@of(Weights, one_head)
def mix_head(lane, w, s, layer, head, memory, first, last):
    """One head, tokens [first, last) in order: the recurrence, group norm, gate."""
    size = memory.shape[0]
    lo, hi = head * size, (head + 1) * size
    bonus, decay = w.first[layer, lo:hi], w.decay[layer, lo:hi]
    for t in range(first, last):
        y = s.out[t, lo:hi]
        wkv6_head(memory, s.r[t, lo:hi], s.k[t, lo:hi], s.v[t, lo:hi], bonus, decay, y)
        layer_norm(y, y, w.ln_x[layer, 0, lo:hi], w.ln_x[layer, 1, lo:hi], GROUP_EPSILON)
        if w.gated:
            for c in range(size):
                y[c] *= s.g[t, lo + c]


of(Weights, program.channel_mix)(receptance_channel_mix)

READS = tails(
    "ln1 ln2 att.ln_x",
    "att.receptance att.key att.value att.output ffn.key ffn.value ffn.receptance att.gate",
    "att.time_mix_k att.time_mix_v att.time_mix_r att.time_mix_g att.time_decay att.time_first att.time_faaaa "
    "ffn.time_mix_k ffn.time_mix_r",
)
FAMILY = Family("v5", marks, infer, heads_planes, prepare, scratch, READS)
