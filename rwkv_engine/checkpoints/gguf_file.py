"""Read GGUF files of RWKV-6 and RWKV-7: float tensors in place, quantized ones with the `gguf` package."""

import dataclasses
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.gguf_header import TensorInfo, read_gguf_header
from rwkv_engine.checkpoints.mapping import map_file, mapped_tensor
from rwkv_engine.errors import CheckpointError, UnknownLayout, shown
from rwkv_engine.numbers.bf16 import float32_to_bf16
from rwkv_engine.numbers.container import SIZES
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.extras import missing

ARCHITECTURES = ("rwkv6", "rwkv7")
FLOATS = {0: "F32", 1: "F16", 30: "BF16"}  #: ggml element types that need no decoding


@dataclass(frozen=True, slots=True)
class Quantized:
    """The `bits` of a quantized tensor: decoded to float32 at each call.

    data    uint8 [..., bytes per row], a view of the mapped file.
    block   (values, bytes) of one packed block.
    kind    gguf.GGMLQuantizationType.
    scale   factor for every value.
    quants  the module gguf.quants.
    """

    data: np.ndarray
    block: tuple[int, int]
    kind: Any
    scale: float
    quants: ModuleType

    def __call__(self) -> np.ndarray:
        return self._decoded(self.data)

    @property
    def size(self) -> int:
        """Number of values."""
        values, length = self.block
        return self.data.size // length * values

    def at(self, places: np.ndarray) -> np.ndarray:
        """The values at these places (C order); decodes only their blocks."""
        values, length = self.block
        blocks, which = np.unique(places // values, return_inverse=True)
        decoded = self._decoded(self.data.reshape(-1, length)[blocks])
        return decoded.reshape(-1, values)[which.reshape(-1), places % values]

    def _decoded(self, data: np.ndarray) -> np.ndarray:
        values: np.ndarray = self.quants.dequantize(data, self.kind)
        return values if self.scale == 1.0 else values * np.float32(self.scale)


def open_gguf(path: Path) -> Contents:
    """The tensors of one GGUF file under llama.cpp's names, checked and mapped; quantized ones read as F32.

    Raises CheckpointError (damaged or truncated file, an element type that `gguf` cannot decode),
    UnknownLayout (another architecture), MissingExtra (quantized tensors without the package `gguf`).
    """
    data = map_file(path)
    infos, metadata = read_gguf_header(path, data)
    architecture = metadata.get("general.architecture", "none")
    if architecture not in ARCHITECTURES:
        raise UnknownLayout(
            f"{path} is a GGUF of architecture {shown(architecture)}, wanted {' or '.join(ARCHITECTURES)}."
        )
    tensors = {name: _tensor(path, data, name, info) for name, info in infos.items()}
    return Contents("gguf", tensors, metadata)


def scaled(tensor: Tensor, factor: float) -> Tensor:
    """The tensor times a power of two, not read yet."""
    if isinstance(tensor.bits, Quantized):
        return dataclasses.replace(
            tensor, bits=dataclasses.replace(tensor.bits, scale=tensor.bits.scale * factor)
        )
    if tensor.dtype == "BF16":
        return dataclasses.replace(
            tensor, bits=lambda: float32_to_bf16(tensor.float32() * np.float32(factor))
        )
    return dataclasses.replace(tensor, bits=lambda: tensor.bits() * tensor.bits().dtype.type(factor))


def _tensor(path: Path, data: np.ndarray, name: str, info: TensorInfo) -> Tensor:
    if info.kind in FLOATS:
        dtype = FLOATS[info.kind]
        _require_inside(path, name, info, prod(info.shape) * SIZES[dtype], len(data))
        return mapped_tensor(data, name, dtype, info.start, info.shape)
    gguf = _package(path)
    kind, block, size = _kind(path, name, info.kind, gguf)
    if info.shape[-1] % block:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has rows of {info.shape[-1]}, but {kind.name} packs {block} at a time; the file is damaged."
        )
    row = info.shape[-1] // block * size
    length = prod(info.shape[:-1]) * row
    _require_inside(path, name, info, length, len(data))
    packed = data[info.start : info.start + length].reshape(*info.shape[:-1], row)
    return Tensor(name, info.shape, "F32", Quantized(packed, (block, size), kind, 1.0, gguf.quants))


def _require_inside(path: Path, name: str, info: TensorInfo, length: int, size: int) -> None:
    if info.start + length > size:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} ends at byte {info.start + length}, but the file has {size}; it is truncated, copy it again."
        )


def _package(path: Path) -> ModuleType:
    """The `gguf` package; imported only for quantized tensors."""
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise missing(f"{path} holds quantized tensors, which", "gguf", "gguf") from error
    return gguf


def _kind(path: Path, name: str, number: int, gguf: ModuleType) -> tuple[Any, int, int]:
    """(type, elements per block, bytes per block) of a ggml element type; tests it on a block of zeros."""
    try:
        kind = gguf.GGMLQuantizationType(number)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has ggml element type {number}, which cannot be decoded; use a float or Q4_0 ... Q8_0 file."
        ) from error
    return kind, int(block), int(size)
