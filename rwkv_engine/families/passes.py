"""`Pass`: the description of one pass over the weights, in an array of int64 at a fixed address.

A program waiting for its next call reads it there: passing arguments through Python would take longer than
a stage of a small model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rwkv_engine.kernels._jit import kernel, viewing
from rwkv_engine.kernels.pointers import matrix
from rwkv_engine.numbers.shapes import CHUNK

#: places of single words; after them tokens, rows, wanted, states and spans, without gaps
TOKENS, SEQUENCES, WANTED, VOCAB, LOGITS, FINITE, LISTS = range(7)
SIZE = LISTS + 5 * CHUNK + 1


class Pass(NamedTuple):
    """A pass, as compiled code sees it.

    tokens  [T] int64: ids of the tokens of B sequences, one sequence after another.
    rows    [T] int64: the rows of the embedding that hold their vectors; these may differ from the ids.
    spans   [B + 1] int64: sequence b has tokens [spans[b], spans[b + 1]).
    states  [B] int64: addresses of the sequences' state blocks.
    wanted  [W] int64: the tokens whose logits are computed.
    logits  [W, V] float32.
    words   the words that all this was read from.
    places  [P, 2] int64: per plane of a state, byte offset in the block and bytes per layer.
    """

    tokens: np.ndarray
    rows: np.ndarray
    spans: np.ndarray
    states: np.ndarray
    wanted: np.ndarray
    logits: np.ndarray
    words: np.ndarray
    places: np.ndarray


def new_words() -> np.ndarray:
    """[SIZE] int64: the words of an empty pass."""
    return np.zeros(SIZE, np.int64)


def tell(
    words: np.ndarray,
    tokens: np.ndarray,
    rows: np.ndarray,
    spans: Sequence[int],
    states: Sequence[int],
    wanted: Sequence[int],
    logits: np.ndarray,
) -> None:
    """Write a pass of at most CHUNK tokens into `words`; fields as in `Pass`, logits contiguous."""
    single = len(tokens), len(states), len(wanted), logits.shape[1], logits.ctypes.data, 1
    every = [*single, *tokens.tolist(), *rows.tolist(), *wanted, *states, *spans]
    words[: len(every)] = every


@viewing
def told(words, places):
    """The Pass described by `words`, for states with planes at `places`."""
    tokens, sequences, wanted = words[TOKENS], words[SEQUENCES], words[WANTED]
    rows = LISTS + tokens
    first = rows + tokens
    states = first + wanted
    spans = states + sequences
    return Pass(
        words[LISTS:rows],
        words[rows:first],
        words[spans : spans + sequences + 1],
        words[states:spans],
        words[first:states],
        matrix(words[LOGITS], wanted, words[VOCAB]),
        words,
        places,
    )


@kernel
def plane(now, number, layer):
    """Byte offset in a state's block of one layer of plane `number` (its index in `Family.planes`)."""
    return now.places[number, 0] + layer * now.places[number, 1]
