"""Records of a container file's contents and of the checkpoint made from it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rwkv_engine.numbers.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """What a packed file (`packed_file`) stores besides tensors.

    fingerprint  of the source checkpoint.
    tokenizer    "world", "bytes", the text of a tokenizer.json, or None: as for the source checkpoint.
    template     name of the chat template, its Jinja text, or None: as for the source checkpoint.
    """

    fingerprint: str
    tokenizer: str | None
    template: str | None


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of one container, under the names in the file.

    container  "safetensors", "torch zip", "gguf", or "packed".
    tensors    name in the file -> Tensor; only headers have been read.
    metadata   the file's text metadata; empty if the container has none.
    packing    of a packed file; None for all others.
    """

    container: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    packing: Packing | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored model; its tensors have BlinkDL's names, shapes and orientation.

    path        the file or folder that was opened.
    container   "safetensors", "torch zip", "gguf", or "packed".
    layout      naming scheme of the file: "BlinkDL", "web-rwkv", "Hugging Face v5", "fla", "GGUF" ...
    tensors     canonical name (`blocks.0.att.key.weight`) -> Tensor; `tensor.name` is the name in the file.
    metadata    the file's text metadata.
    files       folder that may hold a tokenizer.json.
    packing     of a packed file.
    paths       the files it was read from.
    identities  `identity` of each file when it was opened.
    merge       what was merged into it.
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
    """How a checkpoint was made from another one.

    base    the other checkpoint.
    recipe  distinguishes the result from everything else made from `base`.
    made    canonical names of the tensors that are not stored in its files.
    """

    base: Checkpoint
    recipe: str
    made: frozenset[str]


def identity(path: Path) -> str:
    """A file's device, inode, size and change times: these differ after any change, and are quick to get."""
    about = os.stat(path)
    return f"{about.st_dev} {about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
