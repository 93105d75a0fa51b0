"""`State`: everything a model remembers of what it read, in one block of constant size."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from rwkv_engine.errors import StateError
from rwkv_engine.system.files import write_whole

#: version of the state file's meaning
FILE_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Plane:
    """One named part of a state: `shape` float32 numbers, the first axis being the layers, that start as `fill`."""

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


class State:
    """The memory of one conversation: planes of float32 in one block, and how many tokens they have seen.

    `state[name]` is a plane as an array that can be read and written; names: `state.names`. `fork()` copies the state
    at once; `save(path)` writes it, `Model.load_state(path)` reads it back. One state belongs to one thread at a time.
    """

    __slots__ = ("block", "layout", "position")

    def __init__(self, layout: StateLayout, block: npt.NDArray[np.float32], position: int = 0) -> None:
        self.layout = layout
        self.block = block
        self.position = position

    @classmethod
    def fresh(cls, layout: StateLayout) -> "State":
        """A state that has seen nothing."""
        state = cls(layout, np.empty(layout.size, np.float32))
        for plane in layout.planes:
            state[plane.name][...] = plane.fill
        return state

    @property
    def names(self) -> tuple[str, ...]:
        """The planes' names."""
        return tuple(plane.name for plane in self.layout.planes)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes together; the same however much was read."""
        return int(self.block.nbytes)

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        """The plane called `name`, float32, as a view of this state. Raises KeyError for a name that is not in `names`."""
        for plane, start in self._starts():
            if plane.name == name:
                return self.block[start : start + prod(plane.shape)].reshape(plane.shape)
        raise KeyError(name)

    def __eq__(self, other: object) -> bool:
        """Same model, same number of tokens, same numbers bit for bit."""
        if not isinstance(other, State):
            return NotImplemented
        same = self.layout == other.layout and self.position == other.position
        return same and self.block.tobytes() == other.block.tobytes()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def fork(self) -> "State":
        """An independent copy: what happens to one does not reach the other."""
        return State(self.layout, self.block.copy(), self.position)

    def copy_from(self, other: "State") -> None:
        """Become equal to `other`, in place. Raises StateError for a state of another model."""
        if other.layout != self.layout:
            raise StateError("this state belongs to another model than the one it is copied to")
        self.block[:] = other.block
        self.position = other.position

    def save(self, path: str | Path, sync: bool = True) -> None:
        """Write the state as safetensors, whole or not at all; without `sync`, a power cut may damage it (`load` will tell).

        The planes are F32 tensors under their names; the metadata says the model's fingerprint, the tokens seen so far
        and a checksum of both and the numbers. Raises OSError where the file cannot be written.
        """
        metadata = {
            "rwkv_engine.state": FILE_VERSION,
            "fingerprint": self.layout.fingerprint,
            "tokens": str(self.position),
        }
        metadata["checksum"] = _checksum(metadata, self.block)
        write_whole(path, [safetensors.numpy.save({name: self[name] for name in self.names}, metadata)], sync)

    def _starts(self) -> Iterator[tuple[Plane, int]]:
        start = 0
        for plane in self.layout.planes:
            yield plane, start
            start += prod(plane.shape)


def load(path: str | Path, layout: StateLayout) -> State:
    """Read a state that `State.save` wrote, for the model whose layout is given.

    Raises StateError, in one sentence, for a file that is missing, damaged, no state, or of another model.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        planes = safetensors.numpy.load(content)
        metadata = _metadata(content)
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StateError(
            f"{path}: not a readable state file ({type(error).__name__}: {str(error)[:120]})", path=path
        ) from None
    version = metadata.get("rwkv_engine.state")
    if version != FILE_VERSION:
        raise StateError(
            f"{path}: not a state file of this engine: got version {version!r}, want {FILE_VERSION!r}",
            path=path,
            name="version",
            got=version,
            wanted=FILE_VERSION,
        )
    if metadata.get("fingerprint") != layout.fingerprint:
        got, wanted = str(metadata.get("fingerprint"))[:12], layout.fingerprint[:12]
        raise StateError(
            f"{path}: state of another model: got fingerprint {got}, want {wanted}; load it with its own model",
            path=path,
            name="fingerprint",
            got=got,
            wanted=wanted,
        )
    state = State.fresh(layout)
    _fill(state, planes, path)
    if metadata.get("checksum") != _checksum(
        {k: v for k, v in metadata.items() if k != "checksum"}, state.block
    ):
        raise StateError(
            f"{path}: the checksum does not fit the numbers, the file is damaged; use another copy",
            path=path,
            name="checksum",
        )
    state.position = int(metadata["tokens"])
    return state


def _metadata(content: bytes) -> Mapping[str, str]:
    """The `__metadata__` entry of a safetensors file that the library has already accepted."""
    length = int.from_bytes(content[:8], "little")
    found: Mapping[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    return found


def _fill(state: State, planes: Mapping[str, np.ndarray], path: Path) -> None:
    """Copy planes read from `path` into `state`; StateError where names, shapes or dtypes differ."""
    for plane in state.layout.planes:
        got = planes.get(plane.name)
        if got is None or got.shape != plane.shape or got.dtype != np.float32:
            seen = "nothing" if got is None else f"{got.dtype} {list(got.shape)}"
            wanted = f"float32 {list(plane.shape)}"
            raise StateError(
                f"{path}: state plane {plane.name}: got {seen}, want {wanted}",
                path=path,
                name=plane.name,
                got=seen,
                wanted=wanted,
            )
        state[plane.name][...] = got
    unknown = sorted(set(planes) - set(state.names))
    if unknown:
        raise StateError(
            f"{path}: the model's state has no plane {unknown[0]}; it has {', '.join(state.names)}",
            path=path,
            name=unknown[0],
            wanted=state.names,
        )


def _checksum(metadata: Mapping[str, str], block: np.ndarray) -> str:
    """BLAKE2 of the metadata and the numbers."""
    digest = hashlib.blake2b(json.dumps(sorted(metadata.items())).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(block, "<f4").tobytes())
    return digest.hexdigest()
