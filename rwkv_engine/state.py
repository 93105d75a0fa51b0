"""`State`: everything a model remembers of what it read, in one block of constant size."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rwkv_engine.errors import CheckpointError, StateError, shown
from rwkv_engine.numbers.container import HEADER_LIMIT, Entry, read_header, safetensors_parts, stored
from rwkv_engine.system.files import write_whole

#: version of the state file's meaning
FILE_VERSION = "1"


#: what may be done with a state: everything; or it waits for the end of another pass, was taken by a feed
#: that has not begun a pass, is being moved, was left with its numbers half moved
_FREE, _WAITS, _TAKEN, _MOVING, _BROKEN = range(5)
_UNUSABLE = (
    "this state cannot be used: another thread feeds it, or a feed was interrupted and left it between two tokens; "
    "go on from a fork or a file of before, or from a new state"
)


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


class State:
    """The memory of one conversation: planes of float32 in one block, and how many tokens they have seen.

    `state[name]` is a plane as an array that can be read and written; names: `state.names`. `fork()` copies
    the state at once; `save(path)` writes it, `Model.load_state(path)` reads it back. One state belongs to
    one thread at a time. While it is fed, and for good when that is interrupted with its numbers half moved,
    everything refuses it with a StateError; `copy_from` makes it good.
    """

    __slots__ = ("_mark", "_position", "address", "block", "layout")

    def __init__(self, layout: StateLayout, block: npt.NDArray[np.float32], position: int = 0) -> None:
        self.layout = layout
        self.block = block
        self.address = int(block.ctypes.data)  # asked for once: it takes a microsecond
        self._position, self._mark = position, _FREE

    @property
    def position(self) -> int:
        """How many tokens it has seen."""
        if self._mark > _WAITS:
            raise StateError(_UNUSABLE)
        return self._position

    @position.setter
    def position(self, tokens: int) -> None:
        self._position = tokens

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
        """The plane called `name`, float32, as a view of this state.

        Raises KeyError for a name that is not in `names`.
        """
        self._check()
        for plane, start in self._starts():
            if plane.name == name:
                return self.block[start : start + prod(plane.shape)].reshape(plane.shape)
        raise KeyError(name)

    def __eq__(self, other: object) -> bool:
        """Same model, same number of tokens, same numbers bit for bit."""
        if not isinstance(other, State):
            return NotImplemented
        self._check()
        other._check()
        same = self.layout == other.layout and self.position == other.position
        return same and self.block.tobytes() == other.block.tobytes()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def fork(self) -> "State":
        """An independent copy: what happens to one does not reach the other."""
        self._check()
        copy = State(self.layout, self.block.copy(), self._position)
        self._check()  # whether another thread has begun to feed it meanwhile
        return copy

    def copy_from(self, other: "State") -> None:
        """Become equal to `other`, in place, also after an interrupted feed.

        Raises StateError for a state of another model.
        """
        if other.layout != self.layout:
            raise StateError("this state belongs to another model than the one it is copied to")
        other._check()
        if self._mark != _BROKEN:
            self._check()
        self._mark = _BROKEN  # until all is copied
        self.block[:] = other.block
        self._position, self._mark = other._position, _FREE

    def exchange(self, other: "State") -> None:
        """Become `other`, and `other` this one, at once: their blocks change places, and an array taken from one is then of the other.

        Raises StateError for a state of another model.
        """
        if other.layout != self.layout:
            raise StateError("this state belongs to another model than the one it is exchanged with")
        self._check()
        other._check()
        self._mark = other._mark = _BROKEN  # until all of both is exchanged
        self.block, other.block = other.block, self.block
        self.address, other.address = other.address, self.address
        self._position, other._position = other._position, self._position
        self._mark = other._mark = _FREE

    def save(self, path: str | Path, sync: bool = True, private: bool = False) -> None:
        """Write the state as safetensors, whole or not at all; without `sync`, a power cut may damage it
        (`load` will tell).

        private  whether nobody but the user may read a new file; else the umask says who may.
        The planes are F32 tensors under their names; the metadata says the model's fingerprint, the tokens
        seen so far and a checksum of both and the numbers. Raises OSError where the file cannot be written.
        """
        self._check()
        metadata = {
            "rwkv_engine.state": FILE_VERSION,
            "fingerprint": self.layout.fingerprint,
            "tokens": str(self.position),
        }
        metadata["checksum"] = _checksum(metadata, self.block)
        planes = {name: stored(name, "F32", self[name]) for name in self.names}
        write_whole(path, safetensors_parts(planes, metadata), sync, private)

    def _check(self) -> None:
        """Raise StateError while it is fed, or if that was interrupted."""
        if self._mark != _FREE:
            raise StateError(_UNUSABLE)

    def _starts(self) -> Iterator[tuple[Plane, int]]:
        start = 0
        for plane in self.layout.planes:
            yield plane, start
            start += prod(plane.shape)


class Advance:
    """States that move over so many tokens: all passes are made `with` it.

    Behind it they have moved, are untouched, or unusable.

    Making it takes the states. Raises StateError, with all untouched, if one of them is unusable or taken
    already.
    """

    __slots__ = ("_counts", "_states")

    def __init__(self, states: Sequence[State], counts: Sequence[int]) -> None:
        self._states, self._counts = states, counts
        for state in states:
            if state._mark != _FREE:
                raise StateError(_UNUSABLE)
        for state, count in zip(states, counts, strict=True):
            state._mark, state._position = _TAKEN, state._position + count

    def wait(self) -> None:
        """The passes will be made later; until then all that can be asked is what the position will be."""
        for state in self._states:
            state._mark = _WAITS

    def __enter__(self) -> "Advance":
        return self

    def __exit__(self, kind: type[BaseException] | None, *about: object) -> None:
        for state, count in zip(self._states, self._counts, strict=True):
            if kind is None:
                state._mark = _FREE
            elif state._mark == _MOVING:
                state._mark = _BROKEN
            else:  # no pass had begun
                state._position, state._mark = state._position - count, _FREE


def touch(states: Sequence[State]) -> None:
    """A pass over them begins: from here on their numbers may have moved."""
    for state in states:
        state._mark = _MOVING


def load(path: str | Path, layout: StateLayout) -> State:
    """Read a state that `State.save` wrote, for the model whose layout is given.

    Raises StateError, in one sentence, for a file that is missing, damaged, no state, or of another model.
    """
    path = Path(path)
    shown_path = str(path) if len(str(path)) <= 200 else f"...{str(path)[-200:]}"
    try:
        content = _content(path, HEADER_LIMIT + 4 * layout.size)
        entries, metadata = read_header(path, content)
        _check_owner(metadata, layout)
        state = State.fresh(layout)
        _fill(state, content, entries)
        state.position = _checked_tokens(metadata, state.block)
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
    return state


def _content(path: Path, most: int) -> np.ndarray:
    """A file's bytes; ValueError if there are more than `most`."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has over {most} bytes")
    return np.frombuffer(content, np.uint8)


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
    if metadata.get("checksum") != _checksum(notes, block):
        raise StateError(
            "the checksum does not fit the numbers, the file is damaged; use another copy", name="checksum"
        )
    if not re.fullmatch("[0-9]{1,18}", metadata.get("tokens", "")):
        raise StateError(
            f"it has read {shown(metadata.get('tokens'))} tokens, want a whole number, 0 or more; use another copy"
        )
    return int(metadata["tokens"])


def _fill(state: State, content: np.ndarray, entries: Mapping[str, Entry]) -> None:
    """Copy the planes that lie in a file's `content` into `state`; StateError where names, shapes or dtypes
    differ.
    """
    for plane in state.layout.planes:
        entry = entries.get(plane.name)
        if entry is None or entry.shape != plane.shape or entry.dtype != "F32":
            seen = "nothing" if entry is None else f"{entry.dtype} {shown(list(entry.shape))}"
            wanted = f"F32 {list(plane.shape)}"
            what = f"state plane {plane.name}: got {seen}, want {wanted}"
            raise StateError(what, name=plane.name, got=seen, wanted=wanted)
        state[plane.name][...] = np.frombuffer(content, "<f4", prod(plane.shape), entry.start).reshape(
            plane.shape
        )
    unknown = sorted(set(entries) - set(state.names))
    if unknown:
        raise StateError(
            f"the model's state has no plane {shown(unknown[0])}; it has {', '.join(state.names)}",
            name=unknown[0],
            wanted=state.names,
        )


def _checksum(metadata: Mapping[str, str], block: np.ndarray) -> str:
    """BLAKE2 of the metadata and the numbers."""
    digest = hashlib.blake2b(json.dumps(sorted(metadata.items())).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(block, "<f4").tobytes())
    return digest.hexdigest()
