"""Shared by int4 and int5: codes of a table, an 8-bit scale for every 16 of a row; laid out as `code_layout`
says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rwkv_engine.formats.rows import aligned, packed
from rwkv_engine.kernels.factoring import factor
from rwkv_engine.numbers.code_layout import BLOCK, GROUP, GROUPS, STRIP, Codes, padded, row_scales
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system import cpu
from rwkv_engine.system.threads import each

#: weights that a thread quantizes at once: little memory beside the result
_PIECE = 1 << 19
#: what is added to the diagonal of sums of products, as a share of its mean: a text never says all
RIDGE = 0.01


@dataclass(frozen=True, slots=True)
class Kernels:
    """A format's kernels.

    quantize, compensate  as `kernels.code_search.quantize_int4` and `compensate_int4`.
    rows                  the NamedTuple that selects those of products.
    room                  as in Format.
    """

    quantize: Callable[..., None]
    compensate: Callable[..., None]
    rows: Callable[[np.ndarray, int, int], Any]
    room: Callable[[int, int], int]


def quantized(
    table: Codes,
    kernels: Kernels,
    values: np.ndarray,
    importance: np.ndarray,
    feedback: np.ndarray | None = None,
) -> np.ndarray:
    """Some rows of weights as [strips, bytes of a strip].

    importance  [cols, padded] f32: by which a column's errors count.
    feedback    [cols, cols] f32: how columns make up for the errors of those before them; None: they do not.
    """
    values = padded(values)
    scale = row_scales(values)
    lost = np.isnan(scale)
    values[lost] = 0
    strips, cols = len(values) // STRIP, values.shape[1]
    turned = np.ascontiguousarray(values.reshape(strips, STRIP, cols).transpose(0, 2, 1))
    codes = np.empty((strips, cols, STRIP), np.uint8)
    scales = np.empty((strips, cols // GROUP, STRIP), np.int8)
    factors = np.where(lost, np.float32(0), scale).reshape(strips, STRIP)
    if feedback is None:
        kernels.quantize(turned, importance, factors, codes, scales)
    else:
        errors, wanted = np.empty((cols, STRIP), np.float32), np.empty((GROUP, STRIP), np.float32)
        kernels.compensate(turned, importance, feedback, factors, codes, scales, errors, wanted)
    return table.arranged(
        codes.transpose(0, 2, 1).reshape(values.shape),
        scales.transpose(0, 2, 1).reshape(len(values), -1),
        scale,
    )


def feedback_of(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(feedback [cols, cols], importance [cols]) float32, of whole blocks, from sums of products of inputs.

    For errors e of a row, e sums e' is the squared error of its products. With sums = R R', R an upper
    triangle, it is the sum over columns j of R[j, j]^2 (e[j] + the sum over i < j of e[i] R[i, j] / R[j, j])^2.
    """
    cols = len(sums)
    whole = np.zeros((-(-cols // BLOCK) * BLOCK,) * 2)
    whole[:cols, :cols] = sums
    mean = max(float(np.diag(sums).mean()), 1e-30)
    whole[np.diag_indices(len(whole))] += RIDGE * mean
    turned = np.ascontiguousarray(whole[::-1, ::-1])
    factor(turned)
    upper = np.triu(turned[::-1, ::-1])
    own = np.diag(upper).copy()
    return np.ascontiguousarray(upper / own, np.float32), (own**2 / mean).astype(np.float32)


def _kept(table: Codes, integers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The same of `Blocks.integers` that are values of the table."""
    codes, scales, row = table.kept(integers, scale)
    whole = np.zeros(-(-len(row) // STRIP) * STRIP, np.float32)
    whole[: len(row)] = row
    return table.arranged(padded(codes), padded(scales, GROUPS), whole)


def _made(
    table: Codes, kernels: Kernels, same: str | None, tensor: Tensor, sums: np.ndarray | None
) -> np.ndarray:
    """A float matrix as `code_layout` says, quantized by all cores; of a GGUF's codes of the same table only
    the scales are rounded.
    """
    rows, cols = tensor.shape
    read, out = tensor.rows(), np.empty(table.shape_of(rows, cols), np.uint8)
    importance, feedback = np.ones(-(-cols // BLOCK) * BLOCK, np.float32), None
    if sums is not None:
        feedback, importance = feedback_of(sums)
    whole = tensor.integers() if tensor.kind is not None and tensor.kind.name == same else None
    step = max(1, _PIECE // (STRIP * len(importance)))

    def make(first: int) -> None:
        span = first * STRIP, min((first + step) * STRIP, rows)
        given = whole(*span) if whole else None
        out[first : first + step] = (
            _kept(table, *given) if given else quantized(table, kernels, read(*span), importance, feedback)
        )

    each(make, range(0, len(out), step), cpu.lanes())
    return out


def code_format(name: str, table: Codes, kernels: Kernels, same: str | None = None) -> Format:
    """The format of a table's codes; `same` is the type of a GGUF whose codes are those of the table."""
    tag = name.upper()

    def stored(tensor: Tensor) -> np.ndarray:
        """A matrix as it is stored, if it is packed, else quantized now."""
        return aligned(tensor.bits()) if tensor.dtype == tag else _made(table, kernels, same, tensor, None)

    return Format(
        name=name,
        tag=tag,
        quantized=True,
        element=np.dtype(np.uint8),
        shape_of=table.shape_of,
        stored=stored,
        to_float32=table.unpacked,
        pack=partial(packed, kernels.rows, stored),
        room=kernels.room,
        fitted=partial(_made, table, kernels, same),
    )
