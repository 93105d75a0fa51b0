"""Write safetensors files, one tensor at a time, whole or not at all."""

import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints.safetensors_file import SIZES
from rwkv_engine.errors import CheckpointError
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.files import write_whole


def stored(name: str, dtype: str, array: np.ndarray) -> Tensor:
    """A Tensor over an array in memory, to be written.

    dtype  a key of `safetensors_file.SIZES`; BF16 takes its bits as uint16.
    """
    return Tensor(name, array.shape, dtype, lambda: array)


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    align: int = 64,
) -> None:
    """Write the tensors to `path`, which holds either its old content or all of the new, whatever happens.

    tensors   name -> Tensor; each is read (`bits()`) when its turn comes and then let go, so that one at a time is in
              memory. Any element type of the format.
    metadata  text notes.
    align     bytes, a power of two: the data begins at a multiple of it, and so does every tensor whose length is a
              multiple of it (these come first; the format allows no padding). The others follow, larger elements first.
    Raises    CheckpointError (cannot be written), or whatever reading a tensor raises; no part of a file is left.
    """
    try:
        write_whole(path, safetensors_parts(tensors, metadata, align))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}; choose another place.") from error


def safetensors_parts(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, align: int = 64
) -> Iterator[bytes | memoryview]:
    """The bytes of such a file one after another, for `system.files.write_whole`; arguments as of `write_safetensors`."""
    lengths = {name: prod(tensor.shape) * SIZES[tensor.dtype] for name, tensor in tensors.items()}
    order = sorted(tensors, key=lambda name: (lengths[name] % align != 0, -SIZES[tensors[name].dtype], name))
    return _parts(_header(tensors, lengths, order, dict(metadata or {}), align), tensors, order)


def _header(
    tensors: Mapping[str, Tensor],
    lengths: Mapping[str, int],
    order: list[str],
    notes: dict[str, str],
    align: int,
) -> bytes:
    fields: dict[str, object] = {"__metadata__": notes} if notes else {}
    end = 0
    for name in order:
        start, end = end, end + lengths[name]
        shape = list(tensors[name].shape)
        fields[name] = {"dtype": tensors[name].dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(8 + len(text)) % align)
    return len(text).to_bytes(8, "little") + text


def _parts(header: bytes, tensors: Mapping[str, Tensor], order: list[str]) -> Iterator[bytes | memoryview]:
    yield header
    for name in order:
        tensor = tensors[name]
        array = np.ascontiguousarray(tensor.bits())
        assert array.shape == tensor.shape and array.dtype.itemsize == SIZES[tensor.dtype], name
        yield array.reshape(-1).view(np.uint8).data
