"""Many sequences, cut into passes of at most CHUNK tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.running.machinery import Machinery
from rwkv_engine.state import State


@dataclass(frozen=True, slots=True)
class Cut:
    """A pass over parts of some sequences, one part after another.

    sequences  [B] numbers of the sequences.        tokens  [T] int64: of all parts.
    spans      [B + 1]: part b is tokens [spans[b], spans[b + 1]).
    places     [T] for each token, the number of its sequence, and how many tokens of that stand behind it.
    """

    sequences: list[int]
    tokens: np.ndarray
    spans: list[int]
    places: list[tuple[int, int]]


def read_cut(
    machinery: Machinery,
    sequences: Sequence[np.ndarray],
    states: Sequence[State],
    trails: Sequence[Sequence[State]],
    asked: Sequence[int],
) -> tuple[np.ndarray, bool]:
    """(logits, whether all are finite) of reading each of `sequences`, [T] int64, into its state.

    trails   of each sequence the states that become what its own is before its last tokens, one after
             another.
    asked    numbers of the sequences whose logits are computed, behind each of the last 1 + len(trail)
             tokens.
    """
    # by sequence and tokens that are left behind it: the row of a token's logits
    places = [(b, rest) for b in asked for rest in range(len(trails[b]), -1, -1)]
    row_of, finite = {place: row for row, place in enumerate(places)}, True
    logits = np.empty((len(places), machinery.config.vocab), np.float32)
    for cut in cuts(sequences):
        read = [(at, row_of[place]) for at, place in enumerate(cut.places) if place in row_of]
        keep = [
            trails[b][len(trails[b]) - rest].address if 0 < rest <= len(trails[b]) else 0
            for b, rest in cut.places
        ]
        out = np.empty((len(read), machinery.config.vocab), np.float32)
        batch, ends = [states[b] for b in cut.sequences], [at for at, _ in read]
        finite &= machinery.run(cut.tokens, cut.spans, batch, ends, out, kept=keep)
        logits[[row for _, row in read]] = out
    return logits, finite


def cuts(sequences: Sequence[np.ndarray]) -> Iterator[Cut]:
    """The passes that read all of `sequences`, each [T] int64, in their order."""
    done = [0] * len(sequences)
    while pending := [b for b, ids in enumerate(sequences) if done[b] < len(ids)][:CHUNK]:
        counts = shares([len(sequences[b]) - done[b] for b in pending])
        parts = [sequences[b][done[b] : done[b] + count] for b, count in zip(pending, counts, strict=True)]
        places: list[tuple[int, int]] = []
        for b, count in zip(pending, counts, strict=True):
            done[b] += count
            behind = len(sequences[b]) - done[b]
            places += [(b, rest) for rest in range(behind + count - 1, behind - 1, -1)]
        yield Cut(pending, np.concatenate(parts), list(accumulate(counts, initial=0)), places)


def shares(lengths: Sequence[int]) -> list[int]:
    """How many tokens of each sequence go into a pass of CHUNK: all of the short ones, equal shares of the
    long ones.
    """
    counts, room = [0] * len(lengths), CHUNK
    for done, b in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        counts[b] = min(lengths[b], room // (len(lengths) - done))
        room -= counts[b]
    return counts
