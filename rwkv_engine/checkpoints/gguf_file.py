"""Read GGUF files of RWKV-6 and RWKV-7: float tensors in place, quantized ones with the `gguf` package."""

import dataclasses
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from types import ModuleType

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.gguf_header import TensorInfo, read_gguf_header
from rwkv_engine.checkpoints.mapping import map_file, mapped_tensor
from rwkv_engine.errors import CheckpointError, UnknownLayout, shown
from rwkv_engine.numbers.bf16 import float32_to_bf16
from rwkv_engine.numbers.blocks import Blocks, Kind
from rwkv_engine.numbers.container import SIZES
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.extras import missing

ARCHITECTURES = ("rwkv6", "rwkv7")
FLOATS = {0: "F32", 1: "F16", 30: "BF16"}  #: ggml element types that need no decoding


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
    if tensor.blocks is not None:
        blocks = tensor.blocks()
        return _quantized(tensor.name, tensor.shape, dataclasses.replace(blocks, scale=blocks.scale * factor))
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
    kind, decode = _kind(path, name, info.kind, gguf)
    if info.shape[-1] % kind.values:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has rows of {info.shape[-1]}, but {kind.name} packs {kind.values} at a time; the file is damaged."
        )
    row = info.shape[-1] // kind.values * kind.size
    length = prod(info.shape[:-1]) * row
    _require_inside(path, name, info, length, len(data))
    packed = data[info.start : info.start + length].reshape(*info.shape[:-1], row)
    return _quantized(name, info.shape, Blocks(kind, packed, decode))


def _quantized(name: str, shape: tuple[int, ...], blocks: Blocks) -> Tensor:
    return Tensor(name, shape, "F32", blocks.float32, kind=blocks.kind, blocks=lambda: blocks)


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


def _kind(
    path: Path, name: str, number: int, gguf: ModuleType
) -> tuple[Kind, Callable[[np.ndarray], np.ndarray]]:
    """(type, how `Blocks` decode it) of a ggml element type; tests it on a block of zeros."""
    try:
        kind = gguf.GGMLQuantizationType(number)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        decode = partial(_decoded, gguf.quants, kind)
        decode(np.zeros((1, size), np.uint8))
    except (ValueError, KeyError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has ggml element type {number}, which cannot be decoded; use a float or Q4_0 ... Q8_0 file."
        ) from error
    return Kind(kind.name, int(block), int(size)), decode


def _decoded(quants: ModuleType, kind: object, data: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # who uses the numbers reports infinities
        values: np.ndarray = quants.dequantize(data, kind)
    return values
