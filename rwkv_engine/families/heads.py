"""Shared by the families with matrix-valued heads (v5, v6, v7): state planes and division of work."""

from typing import Any

from rwkv_engine.families.passes import copied, plane
from rwkv_engine.kernels._jit import inlined
from rwkv_engine.kernels.lanes import barrier, take
from rwkv_engine.kernels.pointers import matrix
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.state import Plane

#: tokens processed together in one head, and vectors [N] of work space per lane
HEAD_TOKENS = 8
HEAD_VECTORS = 7 * HEAD_TOKENS
#: the plane of matrices
WKV = 2


def heads_planes(config: ModelConfig) -> tuple[Plane, ...]:
    """The previous inputs of both mixes, and wkv [L, H, key channel, value channel]."""
    shift = (config.layers, config.width)
    matrices = (config.layers, config.heads, config.head_size, config.head_size)
    return Plane("att_prev", shift), Plane("ffn_prev", shift), Plane("wkv", matrices)


def one_head(lane: Any, w: Any, s: Any, layer: int, head: int, memory: Any, first: int, last: int) -> None:
    """s.out [T, C] <- one head's output for tokens [first, last), at most HEAD_TOKENS; updates memory [N, N].

    Each family registers its own with `program.of`. lane.room holds HEAD_VECTORS vectors [N].
    """
    raise TypeError(f"no head for weights of type {type(w).__name__}")


@inlined
def each_head(lane, w, s, layer, now):
    """`one_head` for every head of every sequence of a Pass, shared by tickets. Ends with a barrier.

    w.heads  H.
    s.out    [T, C].
    """
    size = s.out.shape[1] // w.heads
    total = w.heads * now.states.shape[0]
    ticket = take(lane, 0, total, -1)
    while ticket < total:
        b, head = ticket // w.heads, ticket % w.heads
        at = now.states[b] + plane(now, WKV, layer) + head * size * size * 4
        memory, stop = matrix(at, size, size), now.spans[b + 1]
        first = now.spans[b]
        while first < stop:
            last = first + 1
            while last < min(first + HEAD_TOKENS, stop) and now.kept[last - 1] == 0:
                last += 1
            one_head(lane, w, s, layer, head, memory, first, last)
            if now.kept[last - 1] != 0:
                copied(now.kept[last - 1] + at - now.states[b], at, size * size)
            first = last
        ticket = take(lane, 0, total, ticket)
    barrier(lane)
