"""What the lanes are told of one pass over the weights, in words that stay where they are: a program that waits for its next call
finds it there, and nothing of it is handed over by Python's ways of calling, which take longer than a stage of a small model."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rwkv_engine.kernels._jit import viewing
from rwkv_engine.kernels.pointers import matrix
from rwkv_engine.numbers.shapes import CHUNK

#: places of single words; behind them the rows, the wanted ones, the states' addresses and the spans, each as long as it is
TOKENS, SEQUENCES, WANTED, VOCAB, LOGITS, FINITE, LISTS = range(7)
SIZE = LISTS + 4 * CHUNK + 1


class Pass(NamedTuple):
    """A pass, as compiled code sees it.

    rows     [T] int64: the tokens of B sequences one after another, as the rows of the embedding in which their vectors are.
    spans    [B + 1] int64: sequence b has tokens [spans[b], spans[b + 1]).
    states   [B] int64: addresses of the sequences' blocks.   wanted  [W] int64: the tokens whose logits are computed.
    logits   [W, V] float32.                                  words   what all this was read from.
    """

    rows: np.ndarray
    spans: np.ndarray
    states: np.ndarray
    wanted: np.ndarray
    logits: np.ndarray
    words: np.ndarray


def new_words() -> np.ndarray:
    """[SIZE] int64: the words of a pass that was not told yet."""
    return np.zeros(SIZE, np.int64)


def tell(
    words: np.ndarray,
    rows: np.ndarray,
    spans: Sequence[int],
    states: Sequence[int],
    wanted: Sequence[int],
    logits: np.ndarray,
) -> None:
    """Write a pass into `words`: what `Pass` holds, at most CHUNK tokens; states are addresses, logits [W, V] float32, contiguous."""
    single = len(rows), len(states), len(wanted), logits.shape[1], logits.ctypes.data, 1
    every = [*single, *rows.tolist(), *wanted, *states, *spans]
    words[: len(every)] = every


@viewing
def told(words):
    """The Pass in `words`."""
    tokens, sequences, wanted = words[TOKENS], words[SEQUENCES], words[WANTED]
    first, states = LISTS + tokens, LISTS + tokens + wanted
    return Pass(
        words[LISTS:first],
        words[states + sequences : states + 2 * sequences + 1],
        words[states : states + sequences],
        words[first:states],
        matrix(words[LOGITS], wanted, words[VOCAB]),
        words,
    )
