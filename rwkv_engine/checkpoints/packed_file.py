"""The engine's own file: matrices are stored exactly as the kernels read them, so loading copies nothing.

It is a safetensors file. Float tensors keep BlinkDL's names, types and orientation, but those in "turned" are
stored transposed, as the kernels need them. A packed matrix is a U8 tensor under its name, in the shape its
format defines. The tokenizer is the U8 tensor "tokenizer.json" (UTF-8), or only a name. The metadata has one
entry, KEY, a JSON object:

    {"version": 3, "fingerprint": of the source, "tokenizer": "world" | "bytes" | "tokenizer.json" | null,
    "template": name,
     "formats": {format: {name: [rows, cols]}}, "turned": [names]}

Version 2 had no matrices stored by units. Version 1 had a single format, under its own name instead of "formats".
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Contents, Packing
from rwkv_engine.checkpoints.layout import turned
from rwkv_engine.checkpoints.mapping import mapped_tensor, require_dtype
from rwkv_engine.checkpoints.names import is_matrix, skips_zeros
from rwkv_engine.checkpoints.write import write_safetensors
from rwkv_engine.errors import CheckpointError, shown
from rwkv_engine.formats import FORMATS, quantized_names, stored_formats
from rwkv_engine.numbers.container import Entry, is_text, stored
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.json_text import parsed

KEY, VERSION, TOKENIZER = "rwkv_engine", 3, "tokenizer.json"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Notes:
    """The checked content of KEY. matrices: name -> (format, [rows, cols], unchecked); turned: names."""

    packing: Packing
    matrices: Mapping[str, tuple[Format, object]]
    turned: frozenset[str]


def packed_contents(
    path: Path, data: np.ndarray, entries: Mapping[str, Entry], metadata: Mapping[str, str]
) -> Contents:
    """The contents of a packed file whose header has been checked.

    Raises CheckpointError if KEY does not fit the tensors.
    """
    notes = _notes(path, metadata[KEY])
    tensors: dict[str, Tensor] = {}
    packing = notes.packing
    for name in (*notes.matrices, *notes.turned):
        if name not in entries:
            raise _unfit(path, f"has notes about {shown(name)}, which is not in it")
        if name in notes.turned and (name in notes.matrices or len(entries[name].shape) < 2):
            raise _unfit(path, f"notes {shown(name)} as turned, which is no float matrix")
    for name, entry in entries.items():
        if name == TOKENIZER and packing.tokenizer == TOKENIZER:
            packing = Packing(
                packing.fingerprint, _text(path, data[entry.start : entry.end]), packing.template
            )
        elif name in notes.matrices:
            tensors[name] = _matrix(path, data, name, entry, *notes.matrices[name])
        else:
            require_dtype(path, name, entry.dtype)
            tensor = mapped_tensor(data, name, entry.dtype, entry.start, entry.shape)
            tensors[name] = turned(tensor) if name in notes.turned else tensor
    if packing.tokenizer == TOKENIZER:
        raise _unfit(path, "has lost its tokenizer")
    return Contents("packed", tensors, {}, packing)


def write_packed(
    path: Path, tensors: Mapping[str, Tensor], turned_names: frozenset[str], packing: Packing
) -> None:
    """Write `tensors` to a packed file, completely or not at all; those with a format are packed matrices.

    turned_names  float matrices to store transposed.
    Raises        CheckpointError if the file cannot be written.
    """
    file = {name: turned(tensor) if name in turned_names else tensor for name, tensor in tensors.items()}
    formats: dict[str, dict[str, list[int]]] = {}
    for name, tensor in tensors.items():
        if tensor.format is not None:
            file[name] = Tensor(name, tensor.format.shape_of(*tensor.shape), "U8", tensor.bits)
            formats.setdefault(tensor.format.name, {})[name] = list(tensor.shape)
    tokenizer = packing.tokenizer
    if tokenizer not in ("world", "bytes", None):
        file[TOKENIZER] = stored(TOKENIZER, "U8", np.frombuffer(tokenizer.encode(), np.uint8))
        tokenizer = TOKENIZER
    notes = {
        "version": VERSION,
        "fingerprint": packing.fingerprint,
        "tokenizer": tokenizer,
        "template": packing.template,
        "formats": formats,
        "turned": sorted(turned_names),
    }
    write_safetensors(path, file, {KEY: json.dumps(notes)})


def _notes(path: Path, text: str) -> _Notes:
    """The content of KEY; all but the matrices' shapes is checked."""
    try:
        notes = parsed(text)
    except ValueError:
        notes = None
    version = notes.get("version") if isinstance(notes, dict) else None
    if not isinstance(notes, dict) or type(version) is not int:
        raise _damaged(path)
    if version not in (1, 2, VERSION):
        raise CheckpointError(
            f"{path} is a packed file of version {shown(version)}, this engine reads {VERSION} and older; pack the model again."
        )
    formats = (
        {name: notes.get(name, {}) for name in quantized_names()} if version == 1 else notes.get("formats")
    )
    fingerprint, template, tokenizer = (notes.get(key) for key in ("fingerprint", "template", "tokenizer"))
    names = notes.get("turned")
    if (
        not isinstance(fingerprint, str)
        or not _FINGERPRINT.fullmatch(fingerprint)
        or not isinstance(template, str)
        or not is_text(template)
        or tokenizer not in ("world", "bytes", TOKENIZER, None)
        or not isinstance(formats, dict)
        or not all(isinstance(shapes, dict) for shapes in formats.values())
        or not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
    ):
        raise _damaged(path)
    return _Notes(Packing(fingerprint, tokenizer, template), _formatted(path, formats), frozenset(names))


def _formatted(path: Path, formats: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Format, object]]:
    """name -> (format, shape as noted) of all packed matrices."""
    matrices: dict[str, tuple[Format, object]] = {}
    known = stored_formats()
    for format, shapes in formats.items():
        if format not in known:
            raise _unfit(path, f"has matrices in format {shown(format)}, which this engine does not have")
        for name, shape in shapes.items():
            if name in matrices:
                raise _unfit(path, f"notes {shown(name)} in two formats")
            matrices[name] = known[format], shape
    return matrices


def _matrix(path: Path, data: np.ndarray, name: str, entry: Entry, format: Format, shape: object) -> Tensor:
    what = f"{path}: packed matrix {shown(name)}"
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(n) is int and 0 < n < 1 << 40 for n in shape)
    ):
        raise CheckpointError(
            f"{what} has shape {shown(shape)}, wanted two positive whole numbers; pack the model again."
        )
    wanted = format.shape_of(*shape)
    if entry.dtype != "U8" or entry.shape != wanted:
        raise CheckpointError(
            f"{what} is {entry.dtype} of shape {list(entry.shape)}, wanted U8 of {list(wanted)}; pack the model again."
        )
    bits = data[entry.start : entry.end].reshape(wanted)
    tensor = Tensor(name, (shape[0], shape[1]), format.tag, lambda: bits, format)
    if not is_matrix(name, tensor):
        raise _unfit(path, f"notes {shown(name)} in format {format.name}, which only matrices can be in")
    if any(format is one.by_units for one in FORMATS.values()) and not skips_zeros(name):
        raise _unfit(path, f"notes {shown(name)} in format {format.name}, in which such a matrix cannot be")
    return tensor


def _text(path: Path, data: np.ndarray) -> str:
    try:
        return data.tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path}: the tokenizer inside is no text (byte {error.start}); pack the model again."
        ) from error


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: the notes of the packed file are damaged; pack the model again.")


def _unfit(path: Path, what: str) -> CheckpointError:
    """The error for notes that contradict the tensors."""
    return CheckpointError(f"{path}: the packed file {what}; pack the model again.")
