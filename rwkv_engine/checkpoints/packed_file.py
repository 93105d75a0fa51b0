"""The engine's own file: a model whose matrices lie as the kernels read them, so that loading copies nothing.

A safetensors file. Float tensors keep BlinkDL's names, types and orientation, except those in "turned", which are stored with their
axes exchanged, as the kernels want them. A packed matrix is a U8 tensor [strips, blocks, bytes] under its name. The tokenizer is
the U8 tensor "tokenizer.json" (UTF-8) or only a name. The metadata's one note, KEY, is a JSON object:

    {"version": 1, "fingerprint": of the source, "tokenizer": "world" | "bytes" | "tokenizer.json" | null, "template": name,
     "int8": {name: [rows, cols]}, "turned": [names]}
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Contents, Packing, shown
from rwkv_engine.checkpoints.layout import turned
from rwkv_engine.checkpoints.mapping import mapped_tensor, require_dtype
from rwkv_engine.checkpoints.safetensors_file import Entry
from rwkv_engine.checkpoints.write import stored, write_safetensors
from rwkv_engine.errors import CheckpointError
from rwkv_engine.numbers import int8_layout
from rwkv_engine.numbers.tensor import Tensor

KEY, VERSION, TOKENIZER = "rwkv_engine", 1, "tokenizer.json"


def packed_contents(
    path: Path, data: np.ndarray, entries: Mapping[str, Entry], metadata: Mapping[str, str]
) -> Contents:
    """The contents of a packed file whose header has been checked. Raises CheckpointError for notes that do not fit the tensors."""
    notes = _notes(path, metadata[KEY])
    tensors: dict[str, Tensor] = {}
    tokenizer = notes.get("tokenizer")
    for name, entry in entries.items():
        if name == TOKENIZER and tokenizer == TOKENIZER:
            tokenizer = _text(path, data[entry.start : entry.end])
        elif name in notes["int8"]:
            tensors[name] = _matrix(path, data, name, entry, notes["int8"][name])
        else:
            require_dtype(path, name, entry.dtype)
            tensor = mapped_tensor(data, name, entry.dtype, entry.start, entry.shape)
            if name in notes["turned"] and len(entry.shape) < 2:
                raise CheckpointError(
                    f"{path}: {shown(name)} is noted as turned, but is no matrix; pack the model again."
                )
            tensors[name] = turned(tensor) if name in notes["turned"] else tensor
    if tokenizer == TOKENIZER:
        raise CheckpointError(f"{path}: the packed file has lost its tokenizer; pack the model again.")
    return Contents("packed", tensors, {}, Packing(notes["fingerprint"], tokenizer, notes["template"]))


def write_packed(
    path: Path, tensors: Mapping[str, Tensor], turned_names: frozenset[str], packing: Packing
) -> None:
    """Write `tensors`, those of type "INT8" being packed matrices, to a packed file, whole or not at all.

    turned_names  float matrices to store with their axes exchanged.
    Raises        CheckpointError where the file cannot be written.
    """
    file = {name: turned(tensor) if name in turned_names else tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.dtype == "INT8":
            file[name] = Tensor(name, int8_layout.shape_of(*tensor.shape), "U8", tensor.bits)
    tokenizer = packing.tokenizer
    if tokenizer not in ("world", "bytes", None):
        file[TOKENIZER] = stored(TOKENIZER, "U8", np.frombuffer(tokenizer.encode(), np.uint8))
        tokenizer = TOKENIZER
    notes = {
        "version": VERSION,
        "fingerprint": packing.fingerprint,
        "tokenizer": tokenizer,
        "template": packing.template,
        "int8": {name: list(tensor.shape) for name, tensor in tensors.items() if tensor.dtype == "INT8"},
        "turned": sorted(turned_names),
    }
    write_safetensors(path, file, {KEY: json.dumps(notes)})


def _notes(path: Path, text: str) -> dict[str, Any]:
    """The checked notes."""
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError):
        notes = None
    if not isinstance(notes, dict) or type(notes.get("version")) is not int:
        raise CheckpointError(f"{path}: the notes of the packed file are damaged; pack the model again.")
    if notes["version"] != VERSION:
        raise CheckpointError(
            f"{path} is a packed file of version {notes['version']}, this engine reads {VERSION}; pack the model again."
        )
    good = all(isinstance(notes.get(key), str) for key in ("fingerprint", "template"))
    good = good and isinstance(notes.get("int8"), dict) and isinstance(notes.get("turned"), list)
    if not good or notes.get("tokenizer") not in ("world", "bytes", TOKENIZER, None):
        raise CheckpointError(f"{path}: the notes of the packed file are damaged; pack the model again.")
    return notes


def _matrix(path: Path, data: np.ndarray, name: str, entry: Entry, shape: object) -> Tensor:
    what = f"{path}: packed matrix {shown(name)}"
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(n) is int and 0 < n < 1 << 40 for n in shape)
    ):
        raise CheckpointError(
            f"{what} has shape {shown(shape)}, wanted two positive whole numbers; pack the model again."
        )
    rows, cols = shape
    wanted = int8_layout.shape_of(rows, cols)
    if entry.dtype != "U8" or entry.shape != wanted:
        raise CheckpointError(
            f"{what} is {entry.dtype} of shape {list(entry.shape)}, wanted U8 of {list(wanted)}; pack the model again."
        )
    return Tensor(name, (rows, cols), "INT8", lambda: data[entry.start : entry.end].reshape(wanted))


def _text(path: Path, data: np.ndarray) -> str:
    try:
        return data.tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path}: the tokenizer inside is no text (byte {error.start}); pack the model again."
        ) from error
