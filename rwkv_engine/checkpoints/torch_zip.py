"""Read .pth files of `torch.save` (1.6 or newer) without torch: a zip archive, with tensors used in place.

    <root>/data.pkl      a pickle: dict of names to tensors, each a storage, an offset, a shape and strides
    <root>/data/<key>    the elements of one storage, not compressed
    <root>/byteorder     "little" or "big"; older files have none and are little-endian

Source: torch/serialization.py, `_save` and `_load`.
"""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.mapping import map_file, mapped_tensor, require_dtype
from rwkv_engine.checkpoints.pickle_reader import Refused, Storage, Stored, read_pickle
from rwkv_engine.errors import CheckpointError, UnknownLayout, brief, shown
from rwkv_engine.numbers.container import SIZES
from rwkv_engine.numbers.tensor import Tensor

PICKLE_LIMIT = 4 << 20  #: bytes; a checkpoint of 1,000 tensors needs about 150,000
#: bytes of a zip directory; 1,000 tensors need about 100,000; listing it costs ten times its size
DIRECTORY_LIMIT = 2 << 20
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
)  #: keys under which trainers keep the tensors
ENCRYPTED = 1  #: bit in a zip entry's flags
LOCAL_HEADER = struct.Struct("<4s5H3L2H")  #: a zip entry's own header, at the offset in the directory


class _Bounded:
    """A file that refuses to read a zip directory over DIRECTORY_LIMIT, before `zipfile` parses all of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        """Like a file's `read`."""
        if count > DIRECTORY_LIMIT:
            raise zipfile.BadZipFile(f"its directory has {count} bytes, over {DIRECTORY_LIMIT}")
        return self._file.read(count)


def open_torch_zip(path: Path) -> Contents:
    """The tensors of one .pth, checked and mapped but not read; no code in the file can run.

    Raises CheckpointError (damaged archive, a pickle with more than tensors, a tensor outside its storage, an
    element type other than F32, F16 and BF16) and UnknownLayout (a zip that torch did not write).
    """
    data = map_file(path)
    entries, root = _entries(path)
    if _read(path, data, entries.get(f"{root}byteorder"), 16, b"little") != b"little":
        raise CheckpointError(
            f"{path} was written on a big-endian machine; write it again on a little-endian one."
        )
    try:
        found = read_pickle(_read(path, data, entries[f"{root}data.pkl"], PICKLE_LIMIT, b""))
    except Refused as refused:
        raise CheckpointError(
            f"{path}: its pickle is not read: {refused}; nothing of it was run; if you trust it, save its state_dict alone."
        ) from refused
    stored = _state_dict(path, found)
    tensors = {name: _tensor(path, data, entries, root, name, record) for name, record in stored.items()}
    return Contents("torch zip", tensors, {})


def _entries(path: Path) -> tuple[dict[str, zipfile.ZipInfo], str]:
    """The archive's directory, and the folder in it ("archive/") that holds data.pkl."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(_Bounded(file)) as archive:
            listing = archive.infolist()
    except (
        OSError,
        zipfile.BadZipFile,
        ValueError,
        NotImplementedError,
        struct.error,
        OverflowError,
    ) as error:
        raise CheckpointError(
            f"{path} is a damaged zip archive ({brief(error, 120)}); copy the file again."
        ) from error
    entries = {entry.filename: entry for entry in listing}
    if len(entries) < len(listing):
        raise CheckpointError(f"{path} has entries of the same name; write the file again.")
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UnknownLayout(
            f"{path} is a zip archive, but no checkpoint of torch: it holds {len(pickles)} data.pkl."
        )
    return entries, pickles[0][: -len("data.pkl")]


def _span(path: Path, data: np.ndarray, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """First and last byte (exclusive) of an entry's stored data in the file."""
    head = entry.header_offset
    if 0 <= head <= len(data) - LOCAL_HEADER.size:
        fields = LOCAL_HEADER.unpack(data[head : head + LOCAL_HEADER.size].tobytes())
        start = head + LOCAL_HEADER.size + fields[9] + fields[10]
        if (
            fields[0] == b"PK\x03\x04"
            and not entry.flag_bits & ENCRYPTED
            and start + entry.compress_size <= len(data)
        ):
            return start, start + entry.compress_size
    raise CheckpointError(
        f"{path}: entry {shown(entry.filename)} does not lie open inside the file; it is truncated or encrypted."
    )


def _read(path: Path, data: np.ndarray, entry: zipfile.ZipInfo | None, limit: int, default: bytes) -> bytes:
    """A small entry's bytes, decompressed if necessary; `default` if there is no such entry."""
    if entry is None:
        return default
    start, end = _span(path, data, entry)
    content = data[start : min(end, start + limit + 1)].tobytes()
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompressobj(-15).decompress(content, limit + 1)
        except zlib.error as error:
            raise CheckpointError(
                f"{path}: entry {shown(entry.filename)} is damaged ({brief(error, 120)}); copy it again."
            ) from error
    if len(content) > limit:
        raise CheckpointError(
            f"{path}: entry {shown(entry.filename)} has over {limit} bytes; it is no checkpoint."
        )
    return content


def _state_dict(path: Path, found: Any) -> dict[str, Stored]:
    """The model's tensors by name: from the object itself, or from the one dict in it with a usual key.

    A model's tensor names contain dots. Other things that trainers save (rng_state, loss, step) have none,
    and are ignored.
    """
    if isinstance(found, dict):
        inner = [found[key] for key in WRAPPERS if isinstance(found.get(key), dict)]
        dicts = [tensors for candidate in (found, *inner) if (tensors := _tensors(candidate))]
        dotted = [{name: stored for name, stored in tensors.items() if "." in name} for tensors in dicts]
        models = [tensors for tensors in dotted if tensors] or dicts[:1]
        if len(models) == 1:
            return models[0]
    raise UnknownLayout(
        f"{path}: its pickle is no dict of tensors, nor holds one as {', '.join(WRAPPERS)}; save model.state_dict() alone."
    )


def _tensors(candidate: dict[Any, Any]) -> dict[str, Stored]:
    return {
        name: value
        for name, value in candidate.items()
        if isinstance(name, str) and isinstance(value, Stored)
    }


def _tensor(
    path: Path, data: np.ndarray, entries: Mapping[str, zipfile.ZipInfo], root: str, name: str, stored: Stored
) -> Tensor:
    """One tensor over the mapped file; checks that every element is inside its storage."""
    storage = stored.storage
    require_dtype(path, name, storage.dtype)
    start = _storage_start(path, data, entries, root, name, storage)
    last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.strides, strict=True))
    if 0 in stored.shape or last >= storage.count or prod(stored.shape) > storage.count:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} of shape {shown(list(stored.shape))} does not fit into its storage of "
            f"{storage.count} elements; the file is damaged."
        )
    return mapped_tensor(
        data, name, storage.dtype, start + stored.offset * SIZES[storage.dtype], stored.shape, stored.strides
    )


def _storage_start(
    path: Path,
    data: np.ndarray,
    entries: Mapping[str, zipfile.ZipInfo],
    root: str,
    name: str,
    storage: Storage,
) -> int:
    """The byte in the file where a storage starts."""
    entry = entries.get(f"{root}data/{storage.key}")
    if entry is None:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has no data in the archive; write the file again."
        )
    if entry.compress_type != zipfile.ZIP_STORED:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} is compressed; write the file again with torch.save."
        )
    start, end = _span(path, data, entry)
    wanted = storage.count * SIZES[storage.dtype]
    if end - start != wanted:
        raise CheckpointError(
            f"{path}: the data of tensor {shown(name)} has {end - start} bytes, wanted {wanted}; the file is damaged."
        )
    return start
