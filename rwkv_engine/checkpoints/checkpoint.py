"""Two records: what a container file holds, and the checkpoint that comes of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rwkv_engine.numbers.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """What a packed file of the engine's own (`packed_file`) knows besides its tensors.

    fingerprint  of the checkpoint that it was made of.
    tokenizer    "world", "bytes", the text of a tokenizer.json, or None: found as for the checkpoint that it
                 was made of.
    template     name of the chat template, the text of one in Jinja, or None: found as for the checkpoint.
    """

    fingerprint: str
    tokenizer: str | None
    template: str | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What one container holds, under the names in the file.

    container  "safetensors", "torch zip", "gguf", or "packed".
    tensors    name in the file -> Tensor; nothing is read yet but headers.
    metadata   text notes of the file; empty where the container has none.
    packing    None for every file that the engine has not packed itself.
    """

    container: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    packing: Packing | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as stored, its tensors under BlinkDL's names and in BlinkDL's shapes and orientation.

    path       the file or folder that was asked for.
    container  "safetensors", "torch zip", "gguf", or "packed".
    layout     whose naming the file follows: "BlinkDL", "web-rwkv", "Hugging Face v5", "fla", "GGUF" ...
    tensors    canonical name (`blocks.0.att.key.weight`) -> Tensor; `tensor.name` keeps the name in the file.
    metadata   text notes of the file.
    files      the folder in which a tokenizer.json may lie beside the weights.
    packing    of a packed file.
    paths      of the files it was read from.    identities  of these files as they were then; see `identity`.
    merge      what was merged into it.
    """

    path: Path
    container: str
    layout: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    files: Path
    packing: Packing | None = None
    paths: tuple[Path, ...] = ()
    identities: tuple[str, ...] = ()
    merge: "Merge | None" = None


@dataclass(frozen=True, slots=True)
class Merge:
    """How a checkpoint came of another one.

    base    the other one.      recipe  what tells the result from any other that is made of it.
    made    canonical names of the tensors that lie in none of its files.
    """

    base: Checkpoint
    recipe: str
    made: frozenset[str]


def identity(path: Path) -> str:
    """What tells one content of a file from any later one, without reading it: device, inode, bytes, times of
    the last changes.
    """
    about = os.stat(path)
    return f"{about.st_dev} {about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
