"""Open safetensors files: tensors as views of the mapped file, after its header has been checked
(`numbers.container`).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.mapping import map_file, mapped_tensor, require_dtype
from rwkv_engine.numbers.container import Entry, read_header


def open_safetensors(path: Path) -> Contents:
    """The tensors of one safetensors file, checked and mapped, none read.

    Raises CheckpointError: a header that lies (lengths, offsets, overlap, holes), a truncated file, a damaged
    JSON, an element type other than F32, F16 and BF16.
    """
    data = map_file(path)
    return float_contents(path, data, *read_header(path, data))


def float_contents(
    path: Path, data: np.ndarray, entries: Mapping[str, Entry], metadata: dict[str, str]
) -> Contents:
    """`open_safetensors` of a mapped file whose header has been checked.

    Raises CheckpointError for an element type it cannot run.
    """
    for name, entry in entries.items():
        require_dtype(path, name, entry.dtype)
    tensors = {n: mapped_tensor(data, n, e.dtype, e.start, e.shape) for n, e in entries.items()}
    return Contents("safetensors", tensors, metadata)
