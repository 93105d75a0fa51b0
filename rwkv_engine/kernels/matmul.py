"""`matmul`: one name for y = x @ W' over every weight format, and what may be done with the result on the way
out.

A weight format is a type (a NamedTuple of the formats); the module of a format's kernels overloads these
names for it, so a family's program is written once and compiled for whatever format the model is in.
"""

from typing import Any

import numpy as np
from numba.extending import register_jitable

from rwkv_engine.kernels.activations import sigmoid, tanh

#: what becomes of a product p:  y = p | y += p | relu(p)^2 | sigmoid(p) | tanh(p) | p * sigmoid(p)
STORE, ADD, RELU2, SIGMOID, TANH, SILU = range(6)


def matmul(lane: Any, slot: int, y: Any, W: Any, layer: int, x: Any, finish: int) -> None:
    """y [T, rows] <- finish(x [T, cols] @ W[layer]'), rows taken by tickets of counter `slot`; a whole stage,
    no barrier.

    All lanes of the team call it; y is complete for every lane after the next barrier. float32 in and out.
    Cost: W[layer] is read once for every call, whatever T is.
    """
    raise TypeError(f"no matmul kernel for weights of type {type(W).__name__}")


def read_row(out: Any, W: Any, layer: int, row: int) -> None:
    """out [cols] float32 <- one row of W[layer]: an embedding."""
    raise TypeError(f"no row reader for weights of type {type(W).__name__}")


def expand(out: Any, W: Any, layer: int, head: int, hidden: Any) -> None:
    """out [T, N] <- hidden [T, R] @ W[layer][head] [R, N]: one head's channels of a low-rank pair's second
    half.

    Stored head by head, so the products run along the channels: a dot of 32 to 128 would be too short to pay.
    Rows of `out` and of `hidden` may lie apart. Cost: the head's weights are read once for every
    EXPAND_TOKENS tokens.
    """
    raise TypeError(f"no expansion kernel for weights of type {type(W).__name__}")


@register_jitable
def activate(y: np.ndarray, first: int, last: int, finish: int) -> None:
    """y [T, rows] at rows [first, last), which hold products: each becomes what `finish` says.

    Nothing to do for STORE and ADD.

    A loop for each, because LLVM makes vector code of none that chooses inside.
    """
    if finish == STORE or finish == ADD:
        return
    for t in range(y.shape[0]):
        products = y[t, first:last]
        if finish == RELU2:
            for r in range(last - first):
                positive = max(products[r], np.float32(0))
                products[r] = positive * positive
        elif finish == SIGMOID:
            for r in range(last - first):
                products[r] = sigmoid(products[r])
        elif finish == TANH:
            for r in range(last - first):
                products[r] = tanh(products[r])
        else:  # SILU
            for r in range(last - first):
                products[r] = products[r] * sigmoid(products[r])
