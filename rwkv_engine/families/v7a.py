"""RWKV-7a: RWKV-7 with DeepEmbed, whose channel mix is scaled by what a table of the token says.

Source: BlinkDL/RWKV-LM@524481d, RWKV-v7/rwkv_v7a_demo.py; ChatRWKV@965e40b,
rwkv_pip_package/src/rwkv/model.py. With x = ln2(residual) and e the token's embedding after ln0:

    S = s_emb[token] + e s_emb_x'  as [R, R], row-major         u = relu(K shift(x))^2
    u *= ((x s1) S) s2 + s0                                     out = V u
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rwkv_engine.families import program, v7
from rwkv_engine.families.ends import Ends, embed
from rwkv_engine.families.family import FFN_PREV, Family, zeros
from rwkv_engine.families.heads import heads_planes, one_head
from rwkv_engine.families.loader import Loader, find, matrix_shape
from rwkv_engine.families.passes import plane
from rwkv_engine.families.program import of
from rwkv_engine.kernels._jit import kernel
from rwkv_engine.kernels.lanes import barrier, share, take
from rwkv_engine.kernels.matmul import ADD, RELU2, STORE, expand, matmul, read_row
from rwkv_engine.kernels.mix import keep_last, mixed_inputs
from rwkv_engine.kernels.pointers import address_of, matrix
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor

#: with so few tokens each lane does the small middle stage for itself, which is quicker than to meet once more
ALONE = 4


class Weights(NamedTuple):
    """Read only: as `v7.Weights`; s_emb is a table [V, R * R] of every layer, s2 is split into `pieces` of the
    hidden units, s0 [L, F].
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
    s_emb: Any
    s_emb_x: Any
    s1: Any
    s2: Any
    s0: np.ndarray
    pieces: int


class Scratch(NamedTuple):
    """As `v7.Scratch`, and: the embedded tokens [T, C]; low, mid [T, R]; S and the table's rows [T, R * R];
    scale [T, F].
    """

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
    embedded: np.ndarray
    low: np.ndarray
    mid: np.ndarray
    square: np.ndarray
    row: np.ndarray
    scale: np.ndarray


def marks(tensors: Mapping[str, Tensor]) -> bool:
    """RWKV-7a alone has DeepEmbed."""
    return v7.marks(tensors) and "blocks.0.ffn.s_emb.weight" in tensors


def infer(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Sizes as of RWKV-7."""
    return replace(v7.infer(tensors), family="v7a", version="7a")


def prepare(load: Loader, config: ModelConfig) -> Weights:
    """Stack, check and format the tensors."""
    _, rank = matrix_shape(load.tensors, "blocks.0.ffn.s1")
    find(load.tensors, "blocks.0.ffn.s_emb.weight")
    pieces = math.gcd(config.ffn, 4 * config.heads)
    return Weights(
        *v7.prepare(load, config),
        s_emb=load.rows("ffn.s_emb.weight", config.vocab, rank * rank),
        s_emb_x=load.matrices("ffn.s_emb_x.weight", rank * rank, config.width),
        s1=load.low_rank_in("ffn.s1", config.width),
        s2=load.low_rank_out([("ffn.s2", 0)], config.ffn, pieces)[0],
        s0=load.vectors("ffn.s0", config.ffn),
        pieces=pieces,
    )


def scratch(config: ModelConfig, weights: Weights, tokens: int) -> Scratch:
    """Work arrays for calls of up to `tokens` tokens."""
    t, rank = tokens, weights.s1.rows
    own = (
        zeros(t, config.width),
        zeros(t, rank),
        zeros(t, rank),
        zeros(t, rank * rank),
        zeros(t, rank * rank),
    )
    return Scratch(*v7.scratch(config, weights, tokens), *own, zeros(t, config.ffn))  # type: ignore[arg-type]


of(Weights, program.time_mix)(v7.time_mix)
of(Weights, one_head)(v7.mix_head)


@of(Weights, program.channel_mix)
def channel_mix(lane, w, s, layer, x, now):
    """x [T, C] += V (relu(K shift(x))^2 scaled by DeepEmbed)."""
    tokens, place = x.shape[0], plane(now, FFN_PREV, layer)
    if layer == 0:
        embed(lane, s.embedded[:tokens], w.ends, now.rows)
    own = mixed_inputs(lane, s.h, s.mixed, x, w.ln2[layer], w.ffn_mix[layer], now, place)
    last = own + tokens
    h = s.h[own:last]
    matmul(lane, 0, s.f[:tokens], w.ffn_key, layer, s.mixed[0][own:last], RELU2)
    matmul(lane, 1, s.square[:tokens], w.s_emb_x, layer, s.embedded[:tokens], STORE)
    matmul(lane, 2, s.low[:tokens], w.s1, layer, h, STORE)
    barrier(lane)
    keep_last(lane, h, now, place)
    rows, mid = s.row[:tokens], s.mid[:tokens]
    start, stop = share(lane, tokens)
    alone = tokens <= ALONE and tokens * (rows.shape[1] + mid.shape[1]) <= lane.room.shape[0]
    if alone:
        at, size = address_of(lane.room), tokens * rows.shape[1]
        rows, mid = matrix(at, tokens, rows.shape[1]), matrix(at + 4 * size, tokens, mid.shape[1])
        start, stop = 0, tokens
    for t in range(start, stop):
        read_row(rows[t], w.s_emb, layer, now.rows[t])
        through_square(mid[t], s.low[t], s.square[t], rows[t])
    if not alone:
        barrier(lane)
    size = s.f.shape[1] // w.pieces
    piece = take(lane, 0, w.pieces, -1)
    while piece < w.pieces:
        first, last = piece * size, (piece + 1) * size
        scale = s.scale[:tokens, first:last]
        expand(scale, w.s2, layer, piece, mid)
        for t in range(tokens):
            for j in range(size):
                s.f[t, first + j] *= scale[t, j] + w.s0[layer, first + j]
        piece = take(lane, 0, w.pieces, piece)
    barrier(lane)
    matmul(lane, 0, x, w.ffn_value, layer, s.f[:tokens], ADD)
    barrier(lane)


@kernel
def through_square(mid, low, square, row):
    """mid [R] <- low [R] (square + row), both [R * R], row-major."""
    size = mid.shape[0]
    for j in range(size):
        mid[j] = np.float32(0)
    for i in range(size):
        for j in range(size):
            mid[j] += low[i] * (square[i * size + j] + row[i * size + j])


READS = v7.READS | {"ffn.s_emb.weight", "ffn.s_emb_x.weight", "ffn.s0", "ffn.s1", "ffn.s2"}
FAMILY = Family("v7a", marks, infer, heads_planes, prepare, scratch, READS)
