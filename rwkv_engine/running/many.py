"""One pass after another over many sequences, until all of their tokens are read."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.running.machinery import Machinery, shares
from rwkv_engine.state import State


def read_all(
    machinery: Machinery,
    batch: Sequence[np.ndarray],
    states: Sequence[State],
    wanted: Sequence[int],
    trails: Sequence[Sequence[State]],
) -> tuple[np.ndarray, bool]:
    """Advance states over their tokens; (logits [W, V], whether all are finite). See `Model.feed_batch`.

    batch   ids of each sequence.
    wanted  indices of the sequences whose logits are computed: after the last token and, with a trail of
            K states, after each of the K tokens before it.
    trails  for each sequence, the states that are kept on the way.
    """
    left, vocab, finite = list(batch), machinery.config.vocab, True
    # by sequence and tokens that are left behind it: the row of a token's logits
    places = [(b, rest) for b in wanted for rest in range(len(trails[b]), -1, -1)]
    row_of = {place: row for row, place in enumerate(places)}
    logits = np.empty((len(places), vocab), np.float32)
    while pending := [b for b in range(len(left)) if len(left[b])][:CHUNK]:
        counts = shares([len(left[b]) for b in pending])
        parts = [left[b][:count] for b, count in zip(pending, counts, strict=True)]
        spans = list(accumulate((len(part) for part in parts), initial=0))
        ends, rows, keep = list[int](), list[int](), [0] * spans[-1]
        for i, b in enumerate(pending):
            first = len(left[b]) - len(parts[i])
            for rest in range(min(len(trails[b]), len(left[b]) - 1), first - 1, -1):
                at = spans[i] + len(left[b]) - 1 - rest
                if (b, rest) in row_of:
                    ends, rows = [*ends, at], [*rows, row_of[b, rest]]
                keep[at] = trails[b][len(trails[b]) - rest].address if rest else 0
            left[b] = left[b][len(parts[i]) :]
        out = np.empty((len(ends), vocab), np.float32)
        finite &= machinery.run(
            np.concatenate(parts), spans, [states[b] for b in pending], ends, out, kept=keep
        )
        logits[rows] = out
    return logits, finite
