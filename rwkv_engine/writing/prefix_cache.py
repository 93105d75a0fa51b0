"""`PrefixCache`: states after the beginnings of long prompts, kept in a folder, so that no text is read
twice.

An entry is a state file whose name is a hash of everything that led to it: the model's fingerprint and weight
format, this kind of processor, the state before the first token, and the tokens. A prompt's hashes are
chained, so the longest beginning that is known is found without an index, and processes that share the folder
need no lock: files are written whole and renamed into place. Entries lie at whole numbers of CHUNK tokens.
Reading on from one makes the same passes as reading from the start, so the logits are the same bit for bit.
States of one model in two formats could stand in for each other, but the numbers would differ a little; they
are kept apart.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rwkv_engine import state as states
from rwkv_engine.errors import OptionError, StateError
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.state import State
from rwkv_engine.system import cpu
from rwkv_engine.system.files import expanded, remove_abandoned
from rwkv_engine.system.folders import cache_folder, private_folder

#: version of what the names mean; raised when a state's numbers would change
VERSION = 1
#: most entries that are kept of one prompt, the one near its end aside
ENTRIES = 16


class PrefixCache:
    """A folder of states after the beginnings of prompts; give it to `Model.generate`.

    folder     None: `prefixes` in the user's cache folder ($XDG_CACHE_HOME/rwkv_engine). Made when it is
               first written to, for the user's eyes only: a state tells something of what was read.
    max_bytes  of all entries; those that were not used for the longest time go first.
    threshold  prompts of fewer tokens are neither looked up nor kept.
    Raises     OptionError for numbers that cannot be meant. A folder that cannot be written to is used as far
               as it can be.
    """

    __slots__ = ("folder", "max_bytes", "threshold")

    def __init__(
        self, folder: str | Path | None = None, max_bytes: int = 2 << 30, threshold: int = 512
    ) -> None:
        for name, value in (("max_bytes", max_bytes), ("threshold", threshold)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise OptionError.of(name, value, "a whole number, 0 or more")
        self.folder = expanded(folder) if folder is not None else cache_folder() / "prefixes"
        self.max_bytes = max_bytes
        self.threshold = threshold

    def __repr__(self) -> str:
        return f"PrefixCache({str(self.folder)!r}, max_bytes={self.max_bytes}, threshold={self.threshold})"

    @property
    def nbytes(self) -> int:
        """Bytes of all entries together."""
        return sum(size for _, size, _ in self._entries())

    def clear(self) -> None:
        """Delete all entries."""
        for _, _, path in self._entries():
            with contextlib.suppress(OSError):
                path.unlink()

    def reading(self, tokens: Sequence[int], format: str) -> "Reading":
        """The way of a prompt through a model, for which states are found and kept; nothing is looked up yet.

        format  name of the model's weight format.
        """
        return Reading(self, tokens, format)

    def take(self, name: str, place: int, state: State) -> bool:
        """Make `state` the entry called `name`, `place` tokens on, if it is there and whole."""
        path = self._path(name)
        if not path.is_file():
            return False
        try:
            found = states.load(path, state.layout)
            if found.position != state.position + place:
                raise StateError(f"{path}: not at the place that its name says")
        except StateError:
            with contextlib.suppress(OSError):
                path.unlink()
            return False
        state.copy_from(found)
        with contextlib.suppress(OSError):
            os.utime(path)
        return True

    def keep(self, name: str, state: State) -> None:
        """Write `state` as the entry called `name`, unless it is there; then delete what is over the limit.

        Without a folder, nothing.
        """
        path = self._path(name)
        if state.nbytes > self.max_bytes:
            return
        with contextlib.suppress(OSError, StateError):
            private_folder(self.folder, close=self.folder == cache_folder() / "prefixes")
            if not path.is_file():
                state.save(path, sync=False, private=True)  # it is checked when it is read
            self._trim()

    def _trim(self) -> None:
        entries = sorted(self._entries())
        left = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if left <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            left -= size
        for path in self.folder.glob(".*.part"):
            remove_abandoned(path)

    def _entries(self) -> list[tuple[int, int, Path]]:
        """(when it was last used, bytes, path) of every entry; other processes may add and delete some
        meanwhile.
        """
        found = []
        for path in self.folder.glob("*.safetensors"):
            with contextlib.suppress(OSError):
                about = path.stat()
                found.append((about.st_mtime_ns, about.st_size, path))
        return found

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


class Reading:
    """A prompt on its way through a model.

    start  tokens that the cache had read before.
    """

    __slots__ = ("_cache", "_format", "_names", "_tokens", "start")

    def __init__(self, cache: PrefixCache, tokens: Sequence[int], format: str) -> None:
        self._cache, self._tokens, self._format = cache, tokens, format
        self._names: dict[int, str] = {}
        self.start = 0

    def begin(self, state: State) -> int:
        """Move `state` over the longest beginning that is known, always leaving some to feed; returns its
        length.

        Damaged entries are deleted.
        """
        tokens, self._tokens = self._tokens, ()
        last = (len(tokens) - 1) // CHUNK * CHUNK
        if len(tokens) < self._cache.threshold or last <= 0:
            return 0
        names = _names(np.asarray(tokens[:last], np.int64), state, self._format)
        known = (
            place for place in sorted(names, reverse=True) if self._cache.take(names[place], place, state)
        )
        self.start = next(known, 0)
        self._names = {place: names[place] for place in _places(last) if place > self.start}
        return self.start

    def next_place(self, at: int) -> int:
        """Tokens from the first `at` of the prompt to the next place where a state is kept; many if there is
        none.
        """
        return min((place - at for place in self._names if place > at), default=sys.maxsize)

    def passed(self, place: int, state: State) -> None:
        """`state` is now behind the first `place` tokens: keep it, if this is a place to."""
        if place in self._names:
            self._cache.keep(self._names[place], state)


def _names(tokens: np.ndarray, state: State, format: str) -> dict[int, str]:
    """The entry's name behind every CHUNK tokens: place -> 40 hexadecimal digits."""
    from rwkv_engine.kernels._cache import sources_stamp
    from rwkv_engine.kernels.int8_levels import chosen

    # the stamp, of numba's version and all kernels' sources: sums may be in another order in another engine
    about = f"rwkv_engine prefix {VERSION}\n{state.layout.fingerprint}\n{format}\n{sources_stamp()}\n"
    about += f"{cpu.name()} {chosen()}\n{state.position}\n"
    digest = hashlib.blake2b(about.encode(), digest_size=20)
    digest.update(np.ascontiguousarray(state.block).data)
    names = {}
    for start in range(0, len(tokens), CHUNK):
        digest.update(tokens[start : start + CHUNK].astype("<i8").tobytes())
        names[start + CHUNK] = digest.hexdigest()
    return names


def _places(last: int) -> list[int]:
    """Where a prompt's states are kept: `last`, and every so many chunks, a power of two, that there are
    ENTRIES at most.

    Powers of two, because a longer prompt's places are then among those of a shorter one with the same
    beginning.
    """
    step = CHUNK
    while last // step > ENTRIES:
        step *= 2
    return sorted({*range(step, last + 1, step), last})
