"""Read safetensors files: header checks first, tensors as views of the mapped file.

    bytes 0-7     length of the header, unsigned, little-endian
    then          the header, JSON: name -> {"dtype", "shape", "data_offsets": [start, end]}, and "__metadata__"
    then          the data; offsets count from here, tensors neither overlap nor leave holes

The `safetensors` package is not used to read: its numpy side (0.8.0) knows no BF16. Source of the format:
github.com/huggingface/safetensors, README, section "Format".
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Contents, shown
from rwkv_engine.checkpoints.mapping import map_file, mapped_tensor, require_dtype
from rwkv_engine.errors import CheckpointError

#: element type -> bytes an element
SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip

HEADER_LIMIT = (
    2 << 20
)  #: bytes; a real header takes about 150 a tensor, and parsing costs up to 25 times its length
AXES_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies: `dtype` a key of SIZES, `start` and `end` are bytes of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


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
    """`open_safetensors` of a mapped file whose header has been checked. Raises CheckpointError for an element type it cannot run."""
    for name, entry in entries.items():
        require_dtype(path, name, entry.dtype)
    tensors = {n: mapped_tensor(data, n, e.dtype, e.start, e.shape) for n, e in entries.items()}
    return Contents("safetensors", tensors, metadata)


def read_header(path: Path, data: np.ndarray) -> tuple[dict[str, Entry], dict[str, str]]:
    """Parse and check the header of a mapped file; returns (name -> Entry, metadata). Any element type passes.

    data  uint8 [size], the whole file.
    """
    base, header = _parse(path, data)
    notes = header.pop("__metadata__", None)
    metadata = _metadata(path, {} if notes is None else notes)
    entries = {name: _entry(path, name, fields, base, len(data)) for name, fields in header.items()}
    _require_tiling(path, entries, base, len(data))
    return entries, metadata


def _parse(path: Path, data: np.ndarray) -> tuple[int, dict[str, object]]:
    """The byte at which the data begins, and the header as JSON gives it."""
    if len(data) < 10:
        raise CheckpointError(f"{path} has {len(data)} bytes, too few for a safetensors file; copy it again.")
    length = int(data[:8].view("<u8")[0])
    if length > min(HEADER_LIMIT, len(data) - 8):
        raise CheckpointError(
            f"{path}: the header claims {length} bytes, but at most {min(HEADER_LIMIT, len(data) - 8)} are possible; "
            "the file is truncated, or no safetensors file."
        )
    try:
        header = json.loads(
            data[8 : 8 + length].tobytes().decode("utf-8"), object_pairs_hook=_without_duplicates
        )
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: the header is no valid JSON ({reason}); copy the file again."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no JSON object; copy the file again.")
    return 8 + length, header


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise ValueError(f"{shown(twice)} occurs twice")
    return fields


def _metadata(path: Path, notes: object) -> dict[str, str]:
    if not isinstance(notes, dict) or not all(
        is_text(key) and is_text(value) for key, value in notes.items()
    ):
        raise CheckpointError(f"{path}: __metadata__ must map text to text; write the file again.")
    return notes


def is_text(value: object) -> bool:
    """Text without lone surrogates, which JSON can spell and nothing can print."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _entry(path: Path, name: str, fields: object, base: int, size: int) -> Entry:
    """Check one header row against the file's size; offsets become bytes of the file."""
    what = f"{path}: tensor {shown(name)}"
    if not isinstance(fields, Mapping) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            f"{what} must have exactly dtype, shape and data_offsets; write the file again."
        )
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise CheckpointError(f"{what} has the unknown element type {shown(dtype)}; wanted F32, F16 or BF16.")
    if not _is_sizes(shape) or len(shape) > AXES_LIMIT or 0 in shape:
        raise CheckpointError(
            f"{what} has shape {shown(shape)}, wanted up to {AXES_LIMIT} positive whole numbers."
        )
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(
            f"{what} has data_offsets {shown(offsets)}, wanted two whole numbers, 0 or more."
        )
    start, end = base + offsets[0], base + offsets[1]
    wanted = SIZES[dtype] * prod(shape)
    if end - start != wanted:
        raise CheckpointError(
            f"{what} spans {end - start} bytes, but {dtype} of shape {shown(shape)} takes {wanted}; the header is damaged."
        )
    if end > size:
        raise CheckpointError(
            f"{what} ends at byte {end}, but the file has {size}; it is truncated, copy it again."
        )
    return Entry(dtype, tuple(shape), start, end)


def _is_sizes(numbers: object) -> bool:
    """A list of ints, none a bool, none negative, all of 62 bits or less."""
    return isinstance(numbers, list) and all(
        type(number) is int and 0 <= number < 1 << 62 for number in numbers
    )


def _require_tiling(path: Path, entries: Mapping[str, Entry], base: int, size: int) -> None:
    """The format's rule that the data is covered by the tensors, each byte once."""
    reached, before = base, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        if entry.start != reached:
            kind = "overlaps" if entry.start < reached else "leaves a hole after"
            raise CheckpointError(f"{path}: tensor {shown(name)} {kind} {before}; the header is damaged.")
        reached, before = entry.end, f"tensor {shown(name)}"
    if reached != size:
        raise CheckpointError(f"{path} has {size - reached} bytes after {before}; the header is damaged.")
