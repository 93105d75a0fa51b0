"""A file's bytes as arrays without reading them: memory maps, and tensors that view them."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from rwkv_engine.errors import CheckpointError, shown
from rwkv_engine.numbers.tensor import BITS, Tensor
from rwkv_engine.system.pages import MappedFile


def map_file(path: Path) -> np.ndarray:
    """Map the file read-only; returns its bytes as uint8 [size], empty for an empty file.

    Raises CheckpointError if the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                return np.zeros(0, np.uint8)
            return np.frombuffer(MappedFile.of(file.fileno()), np.uint8)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be opened: {error}; give the path of a readable file."
        ) from error


def require_dtype(path: Path, name: str, dtype: str) -> None:
    """Raise CheckpointError unless weights may have this element type."""
    if dtype not in BITS:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has elements of type {shown(dtype)}, wanted one of {', '.join(BITS)}; convert the file first."
        )


def mapped_tensor(
    data: np.ndarray,
    name: str,
    dtype: str,
    start: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """A Tensor over mapped bytes; the caller has checked that every element is inside `data`.

    data     uint8 [size] from `map_file`.
    dtype    a key of BITS.
    start    byte offset of element 0 in `data`.
    strides  in elements, none negative; None for C order.

    `bits()` is a view of `data`, or a copy if the file does not align it.
    """
    kind: Any = BITS[dtype]

    def bits() -> np.ndarray:
        if strides is None:
            view: np.ndarray = data[start : start + prod(shape) * kind.itemsize].view(kind).reshape(shape)
        else:
            view = np.ndarray(shape, kind, data, start, tuple(step * kind.itemsize for step in strides))
        return view if view.flags.aligned else view.copy()

    return Tensor(name, shape, dtype, bits)
