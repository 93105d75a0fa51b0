"""`State`: everything a model remembers of what it read, in one block of constant size."""

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rwkv_engine.errors import StateError
from rwkv_engine.numbers.container import HEADER_LIMIT
from rwkv_engine.numbers.sizes import size
from rwkv_engine.numbers.state_file import FILE_VERSION as FILE_VERSION
from rwkv_engine.numbers.state_file import Plane as Plane
from rwkv_engine.numbers.state_file import StateLayout as StateLayout
from rwkv_engine.numbers.state_file import parts_of, read_into, short
from rwkv_engine.system.files import Parts, expanded, write_whole

#: what may be done with a state: everything; or it waits for the end of another pass, was taken by a feed
#: that has not begun a pass, is being moved, was left with its numbers half moved
_FREE, _WAITS, _TAKEN, _MOVING, _BROKEN = range(5)
_UNUSABLE = (
    "this state cannot be used: another thread feeds it, or a feed was interrupted and left it between two tokens; "
    "go on from a fork or a file of before, or from a new state"
)


class HasStates(Protocol):
    """Something whose states are of one layout: a `Model`."""

    def new_state(self) -> "State":
        """A state that has seen nothing."""


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
        """Become `other`, and `other` this one, at once: their blocks change places, and an array taken from
        one is then of the other.

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
        """Write the state as safetensors, whole or not at all; without `sync`, a power cut may damage it,
        which is noticed when it is read.

        private  whether nobody but the user may read a new file; else the umask says who may.
        The planes are F32 tensors under their names; the metadata says the model's fingerprint, the tokens
        seen so far and a checksum of both and the numbers. Raises StateError where the file cannot be
        written.
        """
        target = expanded(path)
        try:
            write_whole(target, self._parts(), sync, private)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise StateError(f"{target}: the state cannot be saved: {why}", path=target) from error

    def to_bytes(self) -> bytes:
        """What `save` writes into a file, as bytes."""
        return b"".join(bytes(part) for part in self._parts())

    @classmethod
    def from_bytes(cls, data: bytes, model: "HasStates") -> "State":
        """The state that `to_bytes` made, or `save` wrote, for the model that it belongs to.

        Raises StateError, in one sentence, for bytes that are damaged, no state, or of another model.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise StateError(f"state: got {type(data).__name__}, want the bytes that to_bytes() gave")
        state = model.new_state()
        state._position = read_into(state.block, state.layout, np.frombuffer(data, np.uint8), Path("state"))
        return state

    def __repr__(self) -> str:
        used = "" if self._mark == _FREE else ", in use"
        model = self.layout.fingerprint[:12]
        return f"State({self._position} tokens read, {size(self.nbytes)}, model {model}{used})"

    def __copy__(self) -> "State":
        return self.fork()

    def __deepcopy__(self, memo: object) -> "State":
        return self.fork()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled, a state is its numbers: their address is another one where it is unpickled."""
        self._check()
        return State, (self.layout, self.block, self._position)

    def _parts(self) -> Parts:
        """The file of this state, piece by piece."""
        self._check()
        return parts_of(self.block, self.layout, self._position)

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
        for number, state in enumerate(states):
            # Python changes threads at calls and at the ends of loops only: nobody else takes it between
            # these two lines
            if state._mark == _FREE:
                state._mark = _TAKEN
                continue
            for taken in states[:number]:
                taken._mark = _FREE
            raise StateError(_UNUSABLE)
        for state, count in zip(states, counts, strict=True):
            state._position += count

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
    path = expanded(path)
    try:
        content = _content(path, HEADER_LIMIT + 4 * layout.size)
    except (OSError, ValueError) as error:
        raise StateError(
            f"{short(path)}: not a readable state file ({type(error).__name__}: {str(error)[:120]})",
            path=path,
        ) from None
    state = State.fresh(layout)
    state.position = read_into(state.block, layout, content, path)
    return state


def _content(path: Path, most: int) -> np.ndarray:
    """A file's bytes; ValueError if there are more than `most`."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has over {most} bytes")
    return np.frombuffer(content, np.uint8)
