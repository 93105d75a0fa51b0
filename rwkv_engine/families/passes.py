"""`Pass`: the description of one pass over the weights, in an array of int64 at a fixed address.

A program waiting for its next call reads it there: passing arguments through Python would take longer than
a stage of a small model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rwkv_engine.kernels._jit import kernel, viewing
from rwkv_engine.kernels.pointers import floats, matrix
from rwkv_engine.numbers.shapes import CHUNK

#: places of single words; behind them the tokens, their rows, where states are kept, the wanted ones, the
#: states' addresses and the spans, each as long as it is
TOKENS, SEQUENCES, WANTED, VOCAB, LOGITS, FINITE, LISTS = range(7)
SIZE = LISTS + 6 * CHUNK + 1


class Pass(NamedTuple):
    """A pass, as compiled code sees it.

    tokens   [T] int64: the ids of the tokens of B sequences, one sequence after another.
    rows     [T] int64: the rows of the embedding in which their vectors are, which need not be the ids.
    kept     [T] int64: addresses of blocks that become what the token's state is behind it, besides; 0: it is
             not kept.
    spans    [B + 1] int64: sequence b has tokens [spans[b], spans[b + 1]).
    states   [B] int64: addresses of the sequences' blocks.   wanted  [W] int64: the tokens whose logits are
             computed.
    logits   [W, V] float32.                                  words   what all this was read from.
    places   [P, 2] int64: of each plane of a state, bytes from the block's start to it, and bytes of a layer
             of it.
    """

    tokens: np.ndarray
    rows: np.ndarray
    kept: np.ndarray
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
    kept: Sequence[int] | None = None,
) -> None:
    """Write a pass into `words`: what `Pass` holds, at most CHUNK tokens; states are addresses, logits [W, V]
    float32, contiguous.

    kept  as in Pass; None: no state is kept on the way.
    """
    kept = [0] * len(tokens) if kept is None else kept
    single = len(tokens), len(states), len(wanted), logits.shape[1], logits.ctypes.data, 1
    every = [*single, *tokens.tolist(), *rows.tolist(), *kept, *wanted, *states, *spans]
    words[: len(every)] = every


@viewing
def told(words, places):
    """The Pass described by `words`, for states with planes at `places`."""
    tokens, sequences, wanted = words[TOKENS], words[SEQUENCES], words[WANTED]
    rows = LISTS + tokens
    kept = rows + tokens
    first = kept + tokens
    states = first + wanted
    spans = states + sequences
    return Pass(
        words[LISTS:rows],
        words[rows:kept],
        words[kept:first],
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


@kernel
def copied(target, source, count):
    """[count] float32 at address `target` <- those at `source`: a part of a state is kept."""
    there, here = floats(target, count), floats(source, count)
    for i in range(count):
        there[i] = here[i]
