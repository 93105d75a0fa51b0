"""Read the header of a GGUF file: its metadata ("notes") and the place of each tensor.

    "GGUF", u32 version (2 or 3), u64 tensors, u64 notes, all little-endian
    notes      text key, u32 kind, value; text: u64 length, UTF-8; array: u32 kind, u64 length, items
    tensors    text name, u32 axes, u64 lengths (fastest axis first), u32 element type, u64 offset in the data
    data       starts at the next multiple of the note general.alignment (32)

The `gguf` package is not used here: its reader trusts every length and can hang on a damaged file.
Source: github.com/ggml-org/ggml, docs/gguf.md.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rwkv_engine.errors import CheckpointError, shown

TEXT, ARRAY = 8, 9
#: kind of a note -> its struct code
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
COUNT_LIMIT = 10_000  #: tensors, and notes
TEXT_LIMIT = 1 << 20  #: bytes
HEADER_LIMIT = 32 << 20  #: bytes; includes the vocabulary, about 10 MB for the largest
ITEMS_LIMIT = 1 << 19  #: texts in all arrays together: vocabulary entries and merges
AXES_LIMIT = 4


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One row of the header: shape (slowest axis first), ggml element type, start byte in the file."""

    shape: tuple[int, ...]
    kind: int
    start: int


class _Cursor:
    """Reads numbers and text in order; never moves past the end of the file or the header limit.

    The limit is needed because a sparse file can truthfully claim any size at no cost.
    """

    __slots__ = ("data", "items", "place")

    def __init__(self, data: np.ndarray) -> None:
        self.data = data
        self.items = self.place = 0

    def take(self, count: int) -> bytes:
        self._skip(count)
        return self.data[self.place - count : self.place].tobytes()

    def number(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def count(self, code: str = "Q") -> int:
        return int(self.number(code))

    def text(self) -> str:
        length = self.count()
        if length > TEXT_LIMIT:
            raise ValueError(f"a text of {length} bytes")
        return self.take(length).decode("utf-8")

    def skip_array(self) -> None:
        kind, length = self.count("I"), self.count()
        if kind in NUMBERS:
            self._skip(length * struct.calcsize("<" + NUMBERS[kind]))
        elif kind == TEXT:
            self.items += length
            if self.items > ITEMS_LIMIT:
                raise ValueError(f"over {ITEMS_LIMIT} texts in arrays")
            for _ in range(length):
                self._skip(self.count())
        else:
            raise ValueError(f"an array of kind {kind}")

    def _skip(self, count: int) -> None:
        if count > len(self.data) - self.place:
            raise ValueError("it ends early")
        self.place += count
        if self.place > HEADER_LIMIT:
            raise ValueError(f"over {HEADER_LIMIT} bytes")


def read_gguf_header(path: Path, data: np.ndarray) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Parse a mapped GGUF file; returns (name -> TensorInfo, notes as text without arrays).

    data    uint8 [size], the whole file.
    Raises  CheckpointError for a damaged header. The caller checks that tensors end inside the file.
    """
    cursor = _Cursor(data)
    try:
        cursor.take(4)
        version, tensors, notes = cursor.count("I"), cursor.count(), cursor.count()
        if version not in (2, 3):
            raise ValueError(f"version {version}, wanted 2 or 3, little-endian")
        if max(tensors, notes) > COUNT_LIMIT:
            raise ValueError(f"{max(tensors, notes)} entries")
        metadata = _notes(cursor, notes)
        rows = _rows(cursor, tensors)
    except (ValueError, struct.error) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: the GGUF header is damaged ({reason}); copy the file again."
        ) from error
    alignment = metadata.get("general.alignment", "32")
    if alignment not in ("8", "16", "32", "64", "128", "256", "512", "1024", "2048", "4096"):
        raise CheckpointError(
            f"{path}: general.alignment is {shown(alignment)}, wanted a power of two up to 4096."
        )
    base = -(-cursor.place // int(alignment)) * int(alignment)
    infos = {name: TensorInfo(shape, kind, base + offset) for name, shape, kind, offset in rows}
    if len(infos) < len(rows):
        raise CheckpointError(f"{path}: a tensor's name occurs twice in the header; the file is damaged.")
    return infos, metadata


def _notes(cursor: _Cursor, count: int) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for _ in range(count):
        key, kind = cursor.text(), cursor.count("I")
        if kind == TEXT:
            metadata[key] = cursor.text()
        elif kind == ARRAY:
            cursor.skip_array()
        elif kind in NUMBERS:
            metadata[key] = str(cursor.number(NUMBERS[kind]))
        else:
            raise ValueError(f"a note of kind {kind}")
    return metadata


def _rows(cursor: _Cursor, count: int) -> list[tuple[str, tuple[int, ...], int, int]]:
    """(name, shape (slowest axis first), element type, offset) of every tensor."""
    rows = []
    for _ in range(count):
        name, axes = cursor.text(), cursor.count("I")
        if not 0 < axes <= AXES_LIMIT:
            raise ValueError(f"a tensor of {axes} axes")
        shape = tuple(cursor.count() for _ in range(axes))[::-1]
        if not all(0 < length < 1 << 40 for length in shape):
            raise ValueError("a tensor with an impossible axis")
        rows.append((name, shape, cursor.count("I"), cursor.count()))
    return rows
