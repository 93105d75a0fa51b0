"""The two ends of every family's program: embedding rows in, logits out."""

from typing import Any, NamedTuple

import numpy as np

from rwkv_engine.checkpoints.names import FOLDED_SHAPE, LN0
from rwkv_engine.families.loader import Loader
from rwkv_engine.families.passes import FINITE
from rwkv_engine.kernels._jit import kernel
from rwkv_engine.kernels.lanes import barrier, share
from rwkv_engine.kernels.matmul import STORE, matmul, read_row
from rwkv_engine.kernels.norm import EPSILON, layer_norm
from rwkv_engine.kernels.pointers import address_of, integers
from rwkv_engine.numbers.shapes import ModelConfig


class Ends(NamedTuple):
    """Read only.

    emb     [V, C] in the checkpoint's own format.
    head    [V, C] in the model's format.
    ln0     [2, C] float32 (weight, bias), or [0, C] if it is already folded into emb.
    ln_out  [2, C] float32 (weight, bias).
    """

    emb: Any
    head: Any
    ln0: np.ndarray
    ln_out: np.ndarray


def prepare_ends(load: Loader, config: ModelConfig) -> Ends:
    """Check and format the tensors."""
    folded = all(name in load.tensors and load.tensors[name].shape == FOLDED_SHAPE for name in LN0)
    return Ends(
        emb=load.embedding(config.vocab, config.width),
        head=load.head(config.vocab, config.width),
        ln0=np.zeros((0, config.width), np.float32) if folded else load.norm("blocks.0.ln0", config.width),
        ln_out=load.norm("ln_out", config.width),
    )


@kernel
def embed(lane, x, w, rows):
    """x [T, C] <- ln0(embedding rows), for this lane's share of the tokens. Ends with a barrier."""
    start, stop = share(lane, rows.shape[0])
    for t in range(start, stop):
        read_row(x[t], w.emb, 0, rows[t])
        if w.ln0.shape[0] > 0:
            layer_norm(x[t], x[t], w.ln0[0], w.ln0[1], EPSILON)
    barrier(lane)


@kernel
def project(lane, now, w, h, x):
    """The logits of a Pass <- head(ln_out(x [T, C])) for the wanted tokens; h is a work array [T, C].

    Sets the word FINITE to 0 if a logit is not finite. Ends with a barrier.
    """
    wanted, logits = now.wanted, now.logits
    start, stop = share(lane, wanted.shape[0])
    for i in range(start, stop):
        layer_norm(h[i], x[wanted[i]], w.ln_out[0], w.ln_out[1], EPSILON)
    barrier(lane)
    if wanted.shape[0] > 0:
        matmul(lane, 0, logits, w.head, 0, h[: wanted.shape[0]], STORE)
    barrier(lane)
    start, stop = share(lane, logits.shape[0] * logits.shape[1])
    if not all_finite(address_of(logits) + 4 * start, stop - start):
        now.words[FINITE] = 0
    barrier(lane)


@kernel
def all_finite(address, count):
    """Whether [count] float32 at `address` are all finite (no NaN, no infinity)."""
    bits, largest = integers(address, count), np.int32(0)
    for i in range(count):
        largest = max(largest, bits[i] & np.int32(0x7FFFFFFF))
    return largest < np.int32(0x7F800000)
