"""The safetensors container: reads and checks its header, and produces its bytes for writing.

    bytes 0-7     length of the header, unsigned, little-endian
    then          the header, JSON: name -> {"dtype", "shape", "data_offsets": [start, end]}, and
                  "__metadata__"
    then          the data; offsets start here, tensors neither overlap nor leave holes

The package `safetensors` is not used: its NumPy side (0.8.0) does not support BF16, and it does not say where
tensors are in the file, which mapping needs. Tests compare both.
Source of the format: github.com/huggingface/safetensors, README, section "Format".
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from rwkv_engine.errors import CheckpointError, shown
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.json_text import parsed

#: element type -> bytes per element
SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip

#: bytes of a header without metadata: about 150 per tensor are normal; parsing costs up to 25 times its size
HEADER_LIMIT = 2 << 20
#: bytes of a header with leading metadata, and number of entries in it: they cost up to 8 times their size
NOTED_LIMIT, NOTES_LIMIT = 24 << 20, 10_000
AXES_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """Place of one tensor: `dtype` is a key of SIZES, `start` and `end` are bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path, data: np.ndarray) -> tuple[dict[str, Entry], dict[str, str]]:
    """Parse and check the header of a mapped file of any element types: (name -> Entry, metadata).

    data  uint8 [size], the whole file.
    """
    base, header = _parse(path, data)
    notes = header.pop("__metadata__", None)
    metadata = _metadata(path, {} if notes is None else notes)
    entries = {name: _entry(path, name, fields, base, len(data)) for name, fields in header.items()}
    _require_tiling(path, entries, base, len(data))
    return entries, metadata


def _parse(path: Path, data: np.ndarray) -> tuple[int, dict[str, object]]:
    """The byte at which the data starts, and the header as parsed JSON."""
    if len(data) < 10:
        raise CheckpointError(f"{path} has {len(data)} bytes, too few for a safetensors file; copy it again.")
    length = int(data[:8].view("<u8")[0])
    raw = data[8 : 8 + length].tobytes() if length <= min(NOTED_LIMIT, len(data) - 8) else b""
    try:
        text = raw.decode("utf-8")
        noted, notes = _notes_in_front(text) if length > HEADER_LIMIT else (0, {})
        if not raw or len(text) - noted > HEADER_LIMIT:
            raise CheckpointError(
                f"{path}: the header claims {length} bytes, but at most {min(HEADER_LIMIT, len(data) - 8)} are possible; "
                "the file is truncated, or no safetensors file."
            )
        header = parsed("{" * bool(noted) + text[noted:], _without_duplicates)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: the header is no valid JSON ({reason}); copy the file again."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no JSON object; copy the file again.")
    return 8 + length, {**header, "__metadata__": notes} if noted else header


_NOTES = re.compile(r'\s*\{\s*"__metadata__"\s*:\s*\{\s*(?=")')
_COLON, _NEXT, _AFTER = re.compile(r'\s*:\s*(?=")'), re.compile(r'\s*,\s*(?=")'), re.compile(r"\s*\}\s*,\s*")


def _notes_in_front(text: str) -> tuple[int, dict[str, str]]:
    """(characters of a leading `__metadata__`, its entries); (0, {}) if it is not first or not plain text."""
    notes: dict[str, str] = {}
    start, read = _NOTES.match(text), json.JSONDecoder().raw_decode
    while start and len(notes) < NOTES_LIMIT:
        try:
            key, at = read(text, start.end())
            colon = _COLON.match(text, at)
            notes[key], at = read(text, colon.end()) if colon else ("", len(text))
        except ValueError:
            break
        after, start = _AFTER.match(text, at), _NEXT.match(text, at)
        if after:
            return after.end(), notes
    return 0, {}


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
    """Whether a value is text without lone surrogates, which JSON can encode but nothing can print."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _entry(path: Path, name: str, fields: object, base: int, size: int) -> Entry:
    """Check one header row against the file's size; converts offsets to bytes in the file."""
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
    """Whether it is a list of non-negative ints below 2^62, without bools."""
    return isinstance(numbers, list) and all(
        type(number) is int and 0 <= number < 1 << 62 for number in numbers
    )


def _require_tiling(path: Path, entries: Mapping[str, Entry], base: int, size: int) -> None:
    """Check the format's rule that the tensors cover each byte of the data exactly once."""
    reached, before = base, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        if entry.start != reached:
            kind = "overlaps" if entry.start < reached else "leaves a hole after"
            raise CheckpointError(f"{path}: tensor {shown(name)} {kind} {before}; the header is damaged.")
        reached, before = entry.end, f"tensor {shown(name)}"
    if reached != size:
        raise CheckpointError(f"{path} has {size - reached} bytes after {before}; the header is damaged.")


def stored(name: str, dtype: str, array: np.ndarray) -> Tensor:
    """A Tensor over an array in memory, for writing.

    dtype  a key of SIZES; BF16 takes its bits as uint16.
    """
    return Tensor(name, array.shape, dtype, lambda: array)


def safetensors_parts(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, align: int = 64
) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file in order, for `write_whole`; arguments as for `write_safetensors`."""
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
