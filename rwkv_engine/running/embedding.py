"""`Rows`: rows of an embedding, or of another table of tokens, that stays in its file, read as tokens need
them.

They are not read through the memory map: touching a row there maps the whole large page around it in the page
cache, up to 2 MiB, so a few hundred tokens would make the entire embedding count as memory of this process.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rwkv_engine.errors import CheckpointError
from rwkv_engine.families.loader import Table
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.system.pages import MappedFile, mapped_file

#: smaller embeddings (bytes) are kept in memory
WORTH_READING = 8_000_000


def rows_of(tables: Sequence[Table], path: Path) -> "list[Rows]":
    """Rows of a model's tables, whose addresses become those of what is read.

    None where the largest is small, or not all stay in a file.
    """
    if max(table.owner.nbytes for table in tables) < WORTH_READING:
        return []
    found = [Rows.of(table.owner, path) for table in tables]
    rows = [one for one in found if one is not None]
    if len(rows) < len(tables):
        return []
    for table, one in zip(tables, rows, strict=True):
        table.at[table.layer] = one.near.ctypes.data
    return rows


class Rows:
    """Reads rows of an embedding.

    source  [V, C], C-contiguous, a view of a mapped file.
    near    [CHUNK, C] of the same type, where rows are put.
    path    for error messages.
    """

    def __init__(self, source: np.ndarray, file: MappedFile, path: Path) -> None:
        self.near = np.zeros((CHUNK, source.shape[1]), source.dtype)
        self._places = [row.data.cast("B") for row in self.near]
        self._file, self._start, self._size, self._path = file, file.place(source), self.near.strides[0], path

    @classmethod
    def of(cls, source: np.ndarray, path: Path) -> "Rows | None":
        """Those of `source`; None where it is in memory already, or files cannot be read at a place
        (Windows).
        """
        file = mapped_file(source)
        if file is None or not source.flags.c_contiguous or not hasattr(os, "preadv"):
            return None
        return cls(source, file, path)

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """near[t] <- row tokens[t], for at most CHUNK tokens, all below V; returns the rows of `near` to use.

        Raises CheckpointError if reading fails.
        """
        for place, token in zip(self._places, tokens.tolist(), strict=False):
            try:
                count = os.preadv(self._file.descriptor, [place], self._start + token * self._size)
            except OSError as error:
                raise CheckpointError(f"{self._path} cannot be read any more: {error}") from error
            if count != self._size:
                raise CheckpointError(
                    f"{self._path} has been cut off since it was loaded; get the file again"
                )
        return np.arange(len(tokens), dtype=np.int64)
