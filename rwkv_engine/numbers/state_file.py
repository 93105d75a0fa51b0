"""A state as a file: which planes it has, its safetensors container, and the checksum that shows damage."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from rwkv_engine.errors import CheckpointError, StateError, shown
from rwkv_engine.numbers.container import Entry, read_header, safetensors_parts, stored
from rwkv_engine.system.files import Parts

#: version of the state file's meaning
FILE_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Plane:
    """One named part of a state: `shape` float32 numbers, the first axis being the layers, that start as
    `fill`.
    """

    name: str
    shape: tuple[int, ...]
    fill: float = 0.0


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Which planes a model's state has, and whose state it is.

    planes       in the order in which they lie in the block.
    fingerprint  of the model's checkpoint.
    """

    planes: tuple[Plane, ...]
    fingerprint: str

    @property
    def size(self) -> int:
        """float32 numbers in all planes together."""
        return sum(prod(plane.shape) for plane in self.planes)


def parts_of(block: np.ndarray, layout: StateLayout, tokens: int) -> Parts:
    """The file of a state that has read so many tokens, piece by piece."""
    metadata = {
        "rwkv_engine.state": FILE_VERSION,
        "fingerprint": layout.fingerprint,
        "tokens": str(tokens),
    }
    metadata["checksum"] = checksum(metadata, block)
    planes, start = {}, 0
    for plane in layout.planes:
        count = prod(plane.shape)
        planes[plane.name] = stored(plane.name, "F32", block[start : start + count].reshape(plane.shape))
        start += count
    return safetensors_parts(planes, metadata)


def read_into(block: np.ndarray, layout: StateLayout, content: np.ndarray, path: Path) -> int:
    """Copy the numbers in a file's `content` into `block`; return how many tokens the state has read.

    path    for what is said of the file.
    Raises  StateError, in one sentence, for what is damaged, no state, or of another model.
    """
    shown_path = short(path)
    try:
        entries, metadata = read_header(path, content)
        _check_owner(metadata, layout)
        _fill(layout, block, content, entries)
        return _checked_tokens(metadata, block)
    except (OSError, ValueError) as error:
        raise StateError(
            f"{shown_path}: not a readable state file ({type(error).__name__}: {str(error)[:120]})", path=path
        ) from None
    except CheckpointError as error:
        why = str(error).removeprefix(str(path)).lstrip(": ")[:150].rstrip(".")
        raise StateError(f"{shown_path}: not a readable state file ({why})", path=path) from None
    except StateError as error:
        fields = {"name": error.name, "got": error.got, "wanted": error.wanted}
        raise StateError(f"{shown_path}: {error}", path=path, **fields) from None


def short(path: Path) -> str:
    """A path for messages: the end of a long one."""
    return str(path) if len(str(path)) <= 200 else f"...{str(path)[-200:]}"


def _check_owner(metadata: Mapping[str, str], layout: StateLayout) -> None:
    """StateError unless a file's notes say that it is a state of this engine and of this model."""
    version, fingerprint = metadata.get("rwkv_engine.state"), metadata.get("fingerprint", "nothing")
    if version != FILE_VERSION:
        raise StateError(
            f"not a state file of this engine: got version {shown(version)}, want {FILE_VERSION!r}",
            name="version",
            got=version,
            wanted=FILE_VERSION,
        )
    if fingerprint != layout.fingerprint:
        raise StateError(
            f"state of another model: got fingerprint {shown(fingerprint[:12])}, want "
            f"{layout.fingerprint[:12]!r}; load it with its own model",
            name="fingerprint",
            got=fingerprint[:12],
            wanted=layout.fingerprint[:12],
        )


def _checked_tokens(metadata: Mapping[str, str], block: np.ndarray) -> int:
    """How many tokens a state has read, as its file says; StateError unless the checksum fits and it is a
    number.
    """
    notes = {key: value for key, value in metadata.items() if key != "checksum"}
    if metadata.get("checksum") != checksum(notes, block):
        raise StateError(
            "the checksum does not fit the numbers, the file is damaged; use another copy", name="checksum"
        )
    if not re.fullmatch("[0-9]{1,18}", metadata.get("tokens", "")):
        raise StateError(
            f"it has read {shown(metadata.get('tokens'))} tokens, want a whole number, 0 or more; use another copy"
        )
    return int(metadata["tokens"])


def _fill(layout: StateLayout, block: np.ndarray, content: np.ndarray, entries: Mapping[str, Entry]) -> None:
    """Copy the planes that lie in a file's `content` into `block`; StateError where names, shapes or dtypes
    differ.
    """
    start = 0
    for plane in layout.planes:
        entry = entries.get(plane.name)
        if entry is None or entry.shape != plane.shape or entry.dtype != "F32":
            seen = "nothing" if entry is None else f"{entry.dtype} {shown(list(entry.shape))}"
            wanted = f"F32 {list(plane.shape)}"
            what = f"state plane {plane.name}: got {seen}, want {wanted}"
            raise StateError(what, name=plane.name, got=seen, wanted=wanted)
        count = prod(plane.shape)
        block[start : start + count] = np.frombuffer(content, "<f4", count, entry.start)
        start += count
    names = tuple(plane.name for plane in layout.planes)
    unknown = sorted(set(entries) - set(names))
    if unknown:
        raise StateError(
            f"the model's state has no plane {shown(unknown[0])}; it has {', '.join(names)}",
            name=unknown[0],
            wanted=names,
        )


def checksum(metadata: Mapping[str, str], block: np.ndarray) -> str:
    """BLAKE2 of the metadata and the numbers."""
    digest = hashlib.blake2b(json.dumps(sorted(metadata.items())).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(block, "<f4").tobytes())
    return digest.hexdigest()
