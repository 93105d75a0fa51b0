"""Which files belong to a path: one file, or a folder's model, in one file or in shards."""

import re
from collections.abc import Sequence
from pathlib import Path

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.errors import CheckpointError, MissingTensor, UnknownLayout, shown
from rwkv_engine.numbers.container import HEADER_LIMIT
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.json_text import parsed_file

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
PREFERRED = ("model.safetensors", "pytorch_model.bin")  #: names that `transformers` uses
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")  #: a shard: stem, number, count, ending
ENDINGS = (".safetensors", ".st", ".pth", ".gguf")


def files_of(path: Path) -> tuple[list[Path], frozenset[str]]:
    """The files to open, and the tensor names that the index lists (empty without an index).

    Raises CheckpointError (no such path, damaged index) and UnknownLayout (a folder with no model or
    several).
    """
    try:
        if path.is_dir():
            return _files_in(path)
        if not path.exists():
            raise CheckpointError(f"{path} does not exist; give the path of a model file or folder.")
        if not path.is_file():
            raise CheckpointError(f"{path} is no ordinary file; give the path of a model file or folder.")
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be looked at: {error.strerror or error}; check the path and its permissions."
        ) from error
    part = SHARD.fullmatch(path.name)
    if part and int(part[3]) > 1:
        raise UnknownLayout(f"{path} is part {int(part[2])} of {int(part[3])} of a model; {_whole(part)}.")
    return [path], frozenset()


def _files_in(path: Path) -> tuple[list[Path], frozenset[str]]:
    for index, name in zip(INDEXES, PREFERRED, strict=True):
        if (path / name).is_file():  # like `transformers`: ignore an index beside it
            return [path / name], frozenset()
        if (path / index).is_file():
            return _shards(path / index)
    found = sorted(file for file in path.iterdir() if file.suffix in ENDINGS and file.is_file())
    if not found:
        raise UnknownLayout(
            f"{path} holds no model: wanted {PREFERRED[0]}, its shards with {INDEXES[0]}, {PREFERRED[1]}, or one file "
            f"ending in {', '.join(ENDINGS)}."
        )
    parts = [SHARD.fullmatch(file.name) for file in found]
    if all(parts) and len({(part[1], part[3], part[4]) for part in parts if part}) == 1:
        return _parts(path, found, [part for part in parts if part])
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:4]) + (", ..." if len(found) > 4 else "")
        raise UnknownLayout(f"{path} holds {len(found)} models ({names}); give the path of one of them.")
    return found, frozenset()


def _parts(path: Path, found: list[Path], parts: list[re.Match[str]]) -> tuple[list[Path], frozenset[str]]:
    """All shards of one model without an index.

    Raises CheckpointError if some are missing, UnknownLayout for a split GGUF.
    """
    count = int(parts[0][3])
    if parts[0][4] == ".gguf" and count > 1:
        raise UnknownLayout(f"{path} holds {len(found)} of {count} parts of a GGUF; {_whole(parts[0])}.")
    if [int(part[2]) for part in parts] != list(range(1, count + 1)):
        raise CheckpointError(
            f"{path} holds {len(found)} of {count} parts of a model; download the others too."
        )
    return found, frozenset()


def _whole(part: re.Match[str]) -> str:
    """Advice for a user who gave one part of a model."""
    return (
        "join them with llama-gguf-split --merge" if part[4] == ".gguf" else "give the folder that holds all"
    )


def merged(path: Path, parts: Sequence[Contents], wanted: frozenset[str]) -> Contents:
    """The contents of all shards as one. Raises CheckpointError (a name in two shards) and MissingTensor."""
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for part in parts:
        twice = sorted(tensors.keys() & part.tensors.keys())
        if twice:
            raise CheckpointError(
                f"{path}: tensor {shown(twice[0])} is in two shards; download the model again."
            )
        tensors.update(part.tensors)
        metadata.update(part.metadata)
    missing = sorted(wanted - tensors.keys())
    if missing:
        raise MissingTensor(
            f"{path}: the index names tensor {shown(missing[0])}, but no shard has it; download it again."
        )
    return Contents(parts[0].container, tensors, metadata, parts[0].packing if len(parts) == 1 else None)


def _shards(index: Path) -> tuple[list[Path], frozenset[str]]:
    """The files and tensor names of an index: {"weight_map": {tensor name: file name}}."""
    try:
        if index.stat().st_size > HEADER_LIMIT:
            raise CheckpointError(f"{index} is larger than {HEADER_LIMIT} bytes; it is no index of shards.")
        table = parsed_file(index)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index} cannot be read as JSON: {error}; download it again.") from error
    names = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(file, str) for file in names.values()):
        raise CheckpointError(
            f'{index} has no "weight_map" of tensor names to file names; download it again.'
        )
    files = sorted(set(names.values()))
    for file in files:
        if (
            len(file.encode("utf-8", "surrogatepass")) > 255
            or file in ("", ".", "..")
            or Path(file).name != file
            or "\\" in file
            or "\0" in file
        ):
            raise CheckpointError(
                f"{index}: shard {shown(file)} is no plain file name; download the index again."
            )
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index}: shard {shown(file)} is not in the folder; download it too.")
    return [index.parent / file for file in files], frozenset(names)
