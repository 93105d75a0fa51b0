"""A family that is in no list of the engine: what one has to write to add a generation of RWKV.

Time mix: a leaky sum per channel, s <- forget s + k, y = sigmoid(gate) s. Channel mix: V relu(K x)^2 plus a
row of a table that is looked up by the token's id. Tests register it by one line, a row of
`families.FAMILIES`.
"""

from typing import Any, NamedTuple

import models
import numpy as np

from rwkv_engine.families import program
from rwkv_engine.families.ends import Ends, prepare_ends
from rwkv_engine.families.family import ATT_PREV, FFN_PREV, Family, tails, zeros
from rwkv_engine.families.loader import layers_of, matrix_shape
from rwkv_engine.families.passes import copied, plane
from rwkv_engine.families.program import of
from rwkv_engine.kernels.lanes import barrier, share
from rwkv_engine.kernels.matmul import ADD, RELU2, SIGMOID, STORE, matmul
from rwkv_engine.kernels.mix import keep_last, mixed_inputs
from rwkv_engine.kernels.pointers import floats
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.state import Plane

#: number of the plane of sums
LEAKY = 2


class Weights(NamedTuple):
    """Read only. forget [L, C], table [L, V, C] float32; matrices in the model's format."""

    ends: Ends
    ln1: np.ndarray
    ln2: np.ndarray
    att_mix: np.ndarray
    ffn_mix: np.ndarray
    forget: np.ndarray
    table: np.ndarray
    put: Any
    gate: Any
    give: Any
    up: Any
    down: Any


class Scratch(NamedTuple):
    """Work arrays for up to T tokens."""

    x: np.ndarray
    h: np.ndarray
    mixed: np.ndarray
    k: np.ndarray
    g: np.ndarray
    f: np.ndarray


def marks(tensors):
    """It alone forgets."""
    return "blocks.0.att.forget" in tensors


def infer(tensors):
    """Sizes from the embedding and the channel mix."""
    vocab, width = matrix_shape(tensors, "emb.weight")
    ffn, _ = matrix_shape(tensors, "blocks.0.ffn.up.weight")
    return ModelConfig("toy", "toy", layers_of(tensors), width, 1, width, ffn, vocab)


def planes(config):
    """The previous inputs of both mixes, and the sums."""
    return tuple(Plane(name, (config.layers, config.width)) for name in ("att_prev", "ffn_prev", "leaky"))


def prepare(load, config):
    """Stack, check and format the tensors."""
    c = config.width
    return Weights(
        ends=prepare_ends(load, config),
        ln1=load.norms("ln1", c),
        ln2=load.norms("ln2", c),
        att_mix=load.mixes(["att.mix_put", "att.mix_gate"], c),
        ffn_mix=load.mixes(["ffn.mix_up"], c),
        forget=load.vectors("att.forget", c),
        table=load.vectors("ffn.table", config.vocab, c),
        put=load.matrices("att.put.weight", c, c),
        gate=load.matrices("att.gate.weight", c, c),
        give=load.matrices("att.give.weight", c, c),
        up=load.matrices("ffn.up.weight", config.ffn, c),
        down=load.matrices("ffn.down.weight", c, config.ffn),
    )


def scratch(config, weights, tokens):
    """Work arrays for calls of up to `tokens` tokens."""
    t, c = tokens, config.width
    return Scratch(zeros(t, c), zeros(t, c), zeros(2, t, c), zeros(t, c), zeros(t, c), zeros(t, config.ffn))


@of(Weights, program.time_mix)
def time_mix(lane, w, s, layer, x, now):
    """x [T, C] += give(sigmoid(gate) * leaky sum of put)."""
    tokens, width, place = x.shape[0], x.shape[1], plane(now, ATT_PREV, layer)
    own = mixed_inputs(lane, s.h, s.mixed, x, w.ln1[layer], w.att_mix[layer], now, place)
    last = own + tokens
    matmul(lane, 0, s.k[:tokens], w.put, layer, s.mixed[0][own:last], STORE)
    matmul(lane, 1, s.g[:tokens], w.gate, layer, s.mixed[1][own:last], SIGMOID)
    barrier(lane)
    keep_last(lane, s.h[own:last], now, place)
    lo, hi = share(lane, width)
    for b in range(now.states.shape[0]):
        sums = floats(now.states[b] + plane(now, LEAKY, layer), width)
        for t in range(now.spans[b], now.spans[b + 1]):
            for c in range(lo, hi):
                sums[c] = w.forget[layer, c] * sums[c] + s.k[t, c]
                s.g[t, c] *= sums[c]
            if now.kept[t] != 0:
                at = plane(now, LEAKY, layer) + 4 * lo
                copied(now.kept[t] + at, now.states[b] + at, hi - lo)
    barrier(lane)
    matmul(lane, 0, x, w.give, layer, s.g[:tokens], ADD)
    barrier(lane)


@of(Weights, program.channel_mix)
def channel_mix(lane, w, s, layer, x, now):
    """x [T, C] += down(relu(up)^2) + the table's row of the token."""
    tokens, place = x.shape[0], plane(now, FFN_PREV, layer)
    own = mixed_inputs(lane, s.h, s.mixed, x, w.ln2[layer], w.ffn_mix[layer], now, place)
    last = own + tokens
    matmul(lane, 0, s.f[:tokens], w.up, layer, s.mixed[0][own:last], RELU2)
    barrier(lane)
    keep_last(lane, s.h[own:last], now, place)
    matmul(lane, 0, x, w.down, layer, s.f[:tokens], ADD)
    barrier(lane)
    start, stop = share(lane, tokens)
    for t in range(start, stop):
        for c in range(x.shape[1]):
            x[t, c] += w.table[layer, now.tokens[t], c]
    barrier(lane)


READS = tails(
    "ln1 ln2",
    "att.put att.gate att.give ffn.up ffn.down",
    "att.mix_put att.mix_gate att.forget ffn.mix_up ffn.table",
)
FAMILY = Family("toy", marks, infer, planes, prepare, scratch, READS)


def random_tensors(layers=2, width=24, ffn=83, vocab=256, seed=0):
    """name -> float32 array."""
    make = models._Maker("toy", seed, layers, 1, width, ffn, vocab, (), "absent")
    make.normal("emb.weight", vocab, width)
    make.norm("blocks.0.ln0", width)
    for p in (f"blocks.{n}." for n in range(layers)):
        make.norm(p + "ln1", width)
        make.norm(p + "ln2", width)
        for name in ("att.mix_put", "att.mix_gate", "att.forget", "ffn.mix_up"):
            make.uniform(p + name, width)
        for name in ("put", "gate", "give"):
            make.matrix(f"{p}att.{name}.weight", width, width)
        make.matrix(p + "ffn.up.weight", ffn, width)
        make.matrix(p + "ffn.down.weight", width, ffn)
        make.normal(p + "ffn.table", vocab, width)
    make.norm("ln_out", width)
    make.matrix("head.weight", vocab, width)
    return make.z
