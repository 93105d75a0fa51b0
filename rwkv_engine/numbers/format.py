"""`Format`: what the engine must know about a weight format."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from rwkv_engine.numbers.fitting import Fitting

#: a `numbers.tensor.Tensor`; it imports this module, so it cannot be imported here
Tensor = Any


@dataclass(frozen=True, slots=True)
class Format:
    """One row of `formats.FORMATS`: how a matrix [rows, cols] is stored, as one array.

    name        as in options and packed files.
    tag         `Tensor.dtype` of a tensor stored in it.
    quantized   whether it loses precision: `quantize` writes it to packed files, and only matrices use it.
    element     NumPy type of the stored array; bytes (uint8) for a quantized format.
    shape_of    (rows, cols) -> shape of the stored array.
    stored      tensor -> the stored array, C-contiguous; a view of the file if the file has it like this.
    to_float32  (stored array, rows, cols) -> float32 [rows, cols].
    pack        (tensors of one kind, one per layer) -> (the NamedTuple that selects the kernels, the arrays
                that hold its memory). It has `at` (an address per layer), `rows` and `cols`, and
                `kernels.matmul.matmul` is overloaded for it.
    room        (cols, tokens) -> float32 numbers of `Lane.room` that a product needs.
    pack_heads  (layers, heads) -> as `pack`, for the second halves of low-rank pairs; see
                `formats.rows.packed_heads`. None: only matrices can have this format. Otherwise `read_row`
                and `expand` are overloaded too.
    by_units    the same numbers, stored so that the weights of inputs that are zero need not be read; for
                matrices that `checkpoints.names.skips_zeros` names. None: they are stored like the others.
    fitted      (float tensor, what it has to do on texts) -> the stored array, whose errors cancel there; None:
                the format cannot do that.
    """

    name: str
    tag: str
    quantized: bool
    element: np.dtype[Any]
    shape_of: Callable[[int, int], tuple[int, ...]]
    stored: Callable[[Tensor], np.ndarray]
    to_float32: Callable[[np.ndarray, int, int], np.ndarray]
    pack: Callable[[Sequence[Tensor]], tuple[Any, list[np.ndarray]]]
    room: Callable[[int, int], int]
    pack_heads: Callable[[Sequence[Sequence[Tensor]], int], tuple[list[Any], list[np.ndarray]]] | None = None
    by_units: "Format | None" = None
    fitted: Callable[[Tensor, Fitting], np.ndarray] | None = None

    def bytes_of(self, rows: int, cols: int) -> int:
        """Bytes of a stored matrix."""
        return prod(self.shape_of(rows, cols)) * self.element.itemsize

    def unpack(self, packed: Any, layer: int) -> np.ndarray:
        """One layer's matrix from the result of `pack`, as float32 [rows, cols]; for tests and tools."""
        size = self.bytes_of(packed.rows, packed.cols)
        buffer = memoryview((ctypes.c_char * size).from_address(int(packed.at[layer])))
        stored = np.frombuffer(buffer, self.element).reshape(self.shape_of(packed.rows, packed.cols))
        return self.to_float32(stored, packed.rows, packed.cols)
