"""Open safetensors files: check the header (`numbers.container`), and view the mapped file as tensors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.mapping import map_file, mapped_tensor, require_dtype
from rwkv_engine.numbers.container import Entry, read_header


def open_safetensors(path: Path) -> Contents:
    """The tensors of one safetensors file, checked and mapped but not read.

    Raises CheckpointError: wrong header (lengths, offsets, overlaps, holes), truncated file, damaged JSON, an
    element type other than F32, F16 and BF16.
    """
    data = map_file(path)
    return float_contents(path, data, *read_header(path, data))


def float_contents(
    path: Path, data: np.ndarray, entries: Mapping[str, Entry], metadata: dict[str, str]
) -> Contents:
    """`open_safetensors` for a mapped file whose header has been checked.

    Raises CheckpointError for an unsupported element type.
    """
    for name, entry in entries.items():
        require_dtype(path, name, entry.dtype)
    tensors = {n: mapped_tensor(data, n, e.dtype, e.start, e.shape) for n, e in entries.items()}
    return Contents("safetensors", tensors, metadata)
