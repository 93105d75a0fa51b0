"""Codes of a matrix that does on texts what the float one does, though its inputs are those of a quantized model."""

import numpy as np

from rwkv_engine.kernels.code_feedback import SMALL, Errors, Room, compensate
from rwkv_engine.kernels.factoring import factor, solve, spread
from rwkv_engine.numbers.code_layout import BLOCK, GROUP, STRIP, Codes, padded, row_scales
from rwkv_engine.numbers.fitting import Fitting
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system import cpu
from rwkv_engine.system.threads import each

#: what is added to the sums' diagonal, as a share of its mean: texts never say all
RIDGE = 1e-3
#: the room that corrected weights need above the largest of a row
HEADROOM = np.float32(1.25)
#: how often each column and scale is chosen anew
SWEEPS = 4
#: strips that a thread makes at once
_STEP = 8


def fitted(table: Codes, tensor: Tensor, fitting: Fitting) -> np.ndarray:
    """A float matrix W [rows, cols] as `code_layout` says, quantized by all cores.

    What is quantized is W + (W moves + wanted) sums^-1, the matrix whose products with z are nearest to those of
    W with x, and d; its errors cancel for inputs like z.
    """
    rows, cols = tensor.shape
    read, out = tensor.rows(), np.empty(table.shape_of(rows, cols), np.uint8)
    sums, unit = _whole(fitting.sums)
    lower = np.ascontiguousarray(sums[::-1, ::-1])
    factor(lower)
    cost = _errors(sums, lower)
    moves = padded_square(fitting.moves, len(sums)) / unit
    values, edges = np.array(table.values, np.float32), np.array(table.edges, np.float32)

    def make(first: int) -> None:
        span = slice(first * STRIP, min((first + _STEP) * STRIP, rows))
        wanted = None if fitting.wanted is None else fitting.wanted[span] / unit
        out[first : first + _STEP] = _strips(
            table, values, edges, cost, _corrected(read(span.start, span.stop), moves, wanted, lower)
        )

    each(make, range(0, len(out), _STEP), cpu.lanes())
    return out


def padded_square(matrix: np.ndarray, size: int) -> np.ndarray:
    """[size, size] with zeros behind the matrix."""
    whole = np.zeros((size, size))
    whole[: len(matrix), : len(matrix)] = matrix
    return whole


def _whole(sums: np.ndarray) -> tuple[np.ndarray, float]:
    """(sums of whole blocks in units of their diagonal's mean, with the ridge; this mean)."""
    cols = len(sums)
    unit = max(float(np.diag(sums).mean()), 1e-60)
    whole = padded_square(sums / unit, -(-cols // BLOCK) * BLOCK)
    whole[np.diag_indices(len(whole))] += RIDGE
    return whole, unit


def _errors(sums: np.ndarray, lower: np.ndarray) -> Errors:
    upper = np.triu(np.tril(lower)[::-1, ::-1])
    own = np.diag(upper).copy()
    feedback = np.ascontiguousarray(upper / own, np.float32)
    return Errors(np.ascontiguousarray(own**2, np.float32), feedback, sums.astype(np.float32))


def turned(rows: np.ndarray) -> np.ndarray:
    """[strips, cols, 16] of [whole strips of rows, cols]."""
    strips = len(rows) // STRIP
    return np.ascontiguousarray(rows.reshape(strips, STRIP, -1).transpose(0, 2, 1))


def _corrected(
    rows: np.ndarray, moves: np.ndarray, wanted: np.ndarray | None, lower: np.ndarray
) -> np.ndarray:
    """Weights [whole strips, whole blocks] float32; a row that is not finite stays as it is."""
    weights = padded(rows)
    fine = np.isfinite(weights).all(axis=1)
    clean = turned(np.where(fine[:, None], weights, np.float32(0)))
    change = np.zeros(clean.shape) if wanted is None else turned(padded(wanted))
    spread(clean, moves, change)
    change = np.ascontiguousarray(change[:, ::-1])
    solve(lower, change)
    better = (clean + change[:, ::-1]).astype(np.float32).transpose(0, 2, 1).reshape(weights.shape)
    return np.where(fine[:, None], better, weights)


def _strips(
    table: Codes, values: np.ndarray, edges: np.ndarray, cost: Errors, weights: np.ndarray
) -> np.ndarray:
    scale = row_scales(weights) * HEADROOM
    lost = np.isnan(scale)
    x = turned(np.where(lost[:, None], np.float32(0), weights))
    strips, cols, _ = x.shape
    codes = np.empty(x.shape, np.uint8)
    scales = np.empty((strips, cols // GROUP, STRIP), np.int8)
    own = np.where(lost, np.float32(0), scale).reshape(strips, STRIP)
    room = Room(*(np.empty((n, STRIP), np.float32) for n in (cols, cols, cols, SMALL)))
    compensate(x, cost, values, edges, own, SWEEPS, codes, scales, room)
    return table.arranged(
        codes.transpose(0, 2, 1).reshape(weights.shape),
        scales.transpose(0, 2, 1).reshape(len(weights), -1),
        scale,
    )
