"""`matmul`: one name for y = x @ W' over every weight format, and the activations applied to its result.

A weight format is a type (a NamedTuple of the formats). The module of its kernels overloads these names for
it, so a family's program is written once and compiled for the model's format.
"""

from typing import Any

import numpy as np
from numba.extending import register_jitable

from rwkv_engine.kernels.activations import sigmoid, tanh

#: result for a product p:  y = p | y += p | relu(p)^2 | sigmoid(p) | tanh(p) | p * sigmoid(p)
STORE, ADD, RELU2, SIGMOID, TANH, SILU = range(6)


def matmul(lane: Any, slot: int, y: Any, W: Any, layer: int, x: Any, finish: int) -> None:
    """y [T, rows] <- finish(x [T, cols] @ W[layer]'), rows shared by tickets of counter `slot`; no barrier.

    All lanes of the team call it; y is complete for all after the next barrier. float32 in and out.
    Cost: W[layer] is read once per call for any T.
    """
    raise TypeError(f"no matmul kernel for weights of type {type(W).__name__}")


def read_row(out: Any, W: Any, layer: int, row: int) -> None:
    """out [cols] float32 <- one row of W[layer]: an embedding."""
    raise TypeError(f"no row reader for weights of type {type(W).__name__}")


def expand(out: Any, W: Any, layer: int, head: int, hidden: Any) -> None:
    """out [T, N] <- hidden [T, R] @ W[layer][head] [R, N]: one head of a low-rank pair's second half.

    It is stored head by head, so the products run along the channels: dot products of 32 to 128 are too short
    to be efficient. Rows of `out` and `hidden` need not be contiguous. Cost: the head's weights are read once
    for every EXPAND_TOKENS tokens.
    """
    raise TypeError(f"no expansion kernel for weights of type {type(W).__name__}")


@register_jitable
def activate(y: np.ndarray, first: int, last: int, finish: int) -> None:
    """y [T, rows] at rows [first, last): replace products by what `finish` says (nothing for STORE and ADD).

    One loop per function, because LLVM does not vectorise a loop with the choice inside.
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
