"""Shared by the formats: matrices stay in the mapped file, and are copied only if they must change."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rwkv_engine.numbers.tensor import Tensor

#: numbers converted at a time
_PIECE = 1 << 20
#: `Format.stored`
Stored = Callable[[Tensor], np.ndarray]


def packed(
    rows: Callable[[np.ndarray, int, int], Any], stored: Stored, tensors: Sequence[Tensor]
) -> tuple[Any, list[np.ndarray]]:
    """(rows, owners): the matrices [rows, cols] of all layers as a NamedTuple `rows`, and their arrays.

    The addresses in `rows` are valid as long as the owners exist.
    """
    owners = [stored(tensor) for tensor in tensors]
    at = np.array([array.ctypes.data for array in owners], np.int64)
    return rows(at, *tensors[0].shape), owners


def packed_heads(
    kind: Callable[[np.ndarray, int, int, int], Any],
    stored: Stored,
    layers: Sequence[Sequence[Tensor | None]],
    heads: int,
) -> tuple[list[Any], list[np.ndarray]]:
    """(pairs, owners): second halves [R, C] of low-rank pairs, split by heads; a NamedTuple `kind` per pair.

    layers  per layer, the tensors of all pairs, or None where a layer lacks one (its place stays empty). The
            ranks are the same in every layer.
    An owner [H, all ranks, N] holds one layer: what a head reads is contiguous.
    """
    ranks = [next(tensor.shape[0] for tensor in pair if tensor) for pair in zip(*layers, strict=True)]
    starts = [sum(ranks[:number]) for number in range(len(ranks))]
    owners: list[np.ndarray] = []
    for layer in layers:
        owner = None
        for start, rank, tensor in zip(starts, ranks, layer, strict=True):
            if tensor:
                part = stored(tensor).reshape(rank, heads, -1)
                owner = np.zeros((heads, sum(ranks), part.shape[2]), part.dtype) if owner is None else owner
                owner[:, start : start + rank] = part.transpose(
                    1, 0, 2
                )  # before the next is read (`one_at_a_time`)
        assert owner is not None
        owners.append(owner)
    at = np.array([owner.ctypes.data for owner in owners], np.int64)
    line = owners[0].strides[1]
    return [
        kind(at + start * line, heads, rank, owners[0].strides[0])
        for start, rank in zip(starts, ranks, strict=True)
    ], owners


def converted(tensor: Tensor, dtype: type, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A float matrix [rows, cols] as elements of `dtype`; converts a few float32 rows at a time."""
    read = tensor.rows()
    out: np.ndarray = np.empty(tensor.shape, dtype)
    step = max(1, _PIECE // max(1, tensor.shape[1]))
    for first in range(0, len(out), step):
        out[first : first + step] = convert(read(first, first + step))
    return out


def aligned(array: np.ndarray) -> np.ndarray:
    """`array` itself if compiled code can use it in place (C order, aligned elements), else a copy."""
    return array if array.flags.c_contiguous and array.flags.aligned else np.ascontiguousarray(array).copy()


def row_major(rows: int, cols: int) -> tuple[int, int]:
    """Shape of a matrix that is stored row by row."""
    return rows, cols
