"""`Rows`: rows of an embedding that stays in its file, read when tokens need them.

They are not read through the memory map: touching a row there maps the whole large page around it in the page
cache, up to 2 MiB, so a few hundred tokens would make the entire embedding count as memory of this process.
"""

import os
from pathlib import Path

import numpy as np

from rwkv_engine.errors import CheckpointError
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.system.pages import MappedFile, mapped_file

#: smaller embeddings (bytes) are kept in memory
WORTH_READING = 8_000_000


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
        """The Rows of `source`; None if it is small, in memory already, or there is no preadv (Windows)."""
        file = mapped_file(source)
        if (
            file is None
            or not source.flags.c_contiguous
            or source.nbytes < WORTH_READING
            or not hasattr(os, "preadv")
        ):
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
