"""Shared by int4 and int5: codes of a table, an 8-bit scale for every 16 of a row; laid out as `code_layout`
says.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from rwkv_engine.formats.fitted_codes import fitted
from rwkv_engine.formats.rows import aligned, packed
from rwkv_engine.numbers.code_layout import BLOCK, GROUP, GROUPS, STRIP, Codes, padded, row_scales
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system import cpu
from rwkv_engine.system.threads import each

#: weights that a thread quantizes at once: little memory beside the result
_PIECE = 1 << 19
#: `kernels.code_search.quantize_int4`, or that of other codes
Search = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


def quantized(table: Codes, search: Search, values: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Some rows of weights as [strips, bytes of a strip]; importance [cols, padded] f32: by which a column's
    errors count.
    """
    values = padded(values)
    scale = row_scales(values)
    lost = np.isnan(scale)
    values[lost] = 0
    strips, cols = len(values) // STRIP, values.shape[1]
    turned = np.ascontiguousarray(values.reshape(strips, STRIP, cols).transpose(0, 2, 1))
    codes = np.empty((strips, cols, STRIP), np.uint8)
    scales = np.empty((strips, cols // GROUP, STRIP), np.int8)
    search(turned, importance, np.where(lost, np.float32(0), scale).reshape(strips, STRIP), codes, scales)
    return table.arranged(
        codes.transpose(0, 2, 1).reshape(values.shape),
        scales.transpose(0, 2, 1).reshape(len(values), -1),
        scale,
    )


def _kept(table: Codes, integers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The same of `Blocks.integers` that are values of the table."""
    codes, scales, row = table.kept(integers, scale)
    whole = np.zeros(-(-len(row) // STRIP) * STRIP, np.float32)
    whole[: len(row)] = row
    return table.arranged(padded(codes), padded(scales, GROUPS), whole)


def _stored(table: Codes, search: Search, tag: str, same: str | None, tensor: Tensor) -> np.ndarray:
    """A matrix as `code_layout` says: as it is stored, if it is packed, else quantized now, by all cores; of a
    GGUF's codes of the same table only the scales are rounded.
    """
    if tensor.dtype == tag:
        return aligned(tensor.bits())
    rows, cols = tensor.shape
    read, out = tensor.rows(), np.empty(table.shape_of(rows, cols), np.uint8)
    importance = np.ones(-(-cols // BLOCK) * BLOCK, np.float32)
    whole = tensor.integers() if tensor.kind is not None and tensor.kind.name == same else None
    step = max(1, _PIECE // (STRIP * len(importance)))

    def make(first: int) -> None:
        span = first * STRIP, min((first + step) * STRIP, rows)
        given = whole(*span) if whole else None
        out[first : first + step] = (
            _kept(table, *given) if given else quantized(table, search, read(*span), importance)
        )

    each(make, range(0, len(out), step), cpu.lanes())
    return out


def code_format(
    name: str,
    table: Codes,
    search: Search,
    rows: Callable[[np.ndarray, int, int], Any],
    room: Callable[[int, int], int],
    same: str | None = None,
) -> Format:
    """The format of a table's codes; `rows` is the NamedTuple that selects its kernels, `same` the type of a
    GGUF whose codes are those of the table.
    """
    stored = partial(_stored, table, search, name.upper(), same)
    return Format(
        name=name,
        tag=name.upper(),
        quantized=True,
        element=np.dtype(np.uint8),
        shape_of=table.shape_of,
        stored=stored,
        to_float32=table.unpacked,
        pack=partial(packed, rows, stored),
        room=room,
        fitted=partial(fitted, table),
    )
