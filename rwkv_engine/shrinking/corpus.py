"""Texts as rows of tokens to train on; which rows a step reads follows from the step alone."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rwkv_engine.errors import OptionError
from rwkv_engine.evaluation.pieces import DOCUMENTS, documents, token_pieces
from rwkv_engine.text import Tokenizer


class Corpus:
    """The tokens of files in order, in a mapped file.

    Rows of plain text begin anywhere, those of a file of documents where a document does. Files are read one
    after another, each for its share of all tokens; in a file, rows are drawn.
    """

    __slots__ = ("_ids", "_length", "_parts")

    def __init__(self, texts: Sequence[Path], tokenizer: Tokenizer, kept: Path, length: int) -> None:
        """kept  the file that is written and mapped.    length  tokens of a row.

        Raises OptionError (an empty text, not UTF-8, a line that is no document, less than a row of tokens).
        """
        self._length, self._parts = length, list[tuple[int, int, np.ndarray | None]]()
        size = 0
        with open(kept, "wb") as file:
            for path in texts:
                begin, starts = size, array("q")
                whole = path.suffix == DOCUMENTS
                for ids in _rows_of(path, tokenizer) if whole else token_pieces(path, tokenizer):
                    starts.append(size)
                    np.array(ids, np.uint32).tofile(file)
                    size += len(ids)
                self._parts.append((begin, size, np.array(starts) if whole else None))
        if size <= length:
            raise OptionError(
                f"{', '.join(map(str, texts))}: the text has {size} tokens, and a row takes {length + 1}; "
                "give more text, or a smaller length"
            )
        self._ids = np.memmap(kept, np.uint32, "r")

    @property
    def tokens(self) -> int:
        """Of all files together."""
        return len(self._ids)

    def rows(self, count: int, seed: int, step: int, done: float) -> np.ndarray:
        """[count, length + 1] int64, drawn from the file in which the share `done` of all tokens ends."""
        place = int(min(done, 1.0) * (self.tokens - 1))
        begin, end, starts = next(part for part in self._parts if part[0] <= place < part[1])
        draw, last = np.random.default_rng([seed, step]), self.tokens - self._length - 1
        if starts is None:
            chosen = draw.integers(begin, max(begin, min(end - self._length - 1, last)) + 1, count)
        else:  # in front of a document stands the token that ends one: one row in two begins with it
            chosen = draw.choice(starts, count) + draw.integers(0, 2, count)
        places = np.minimum(chosen, last)[:, None] + np.arange(self._length + 1)
        return self._ids[places].astype(np.int64)


def _rows_of(path: Path, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The ids of each document, behind the token that ends one."""
    end = [] if tokenizer.end is None else [tokenizer.end]
    return (end + tokenizer.encode(text) for text in documents(path))
