"""Pages of memory: how many this process holds, and giving back those of mapped files (Linux; elsewhere nothing is given back).

A page of a read-only mapped file can always be given back: the system reads it again when it is touched, at once if its page cache
still has it.
"""

import ctypes
import mmap
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

#: whether pages can be given back here
HERE = sys.platform.startswith("linux")
#: seconds between two looks at a pass that runs: two lanes map some 5 MB in it
LOOK = 0.001
_DONTNEED = 4
_PAGE = mmap.PAGESIZE


def resident() -> int:
    """Bytes of physical memory that this process holds now, mapped files included; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def peak() -> int:
    """The most bytes of physical memory that this process has held; 0 where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # not getrusage's figure, which may be that of the process that started this one
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no Linux
    return 0


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array is a view of a mapped file, and no copy."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    while isinstance(owner, memoryview):
        owner = owner.obj
    return isinstance(owner, mmap.mmap)


def give_back(array: np.ndarray) -> None:
    """Give back the pages that lie wholly inside a contiguous view of a mapped file; what is no such view is left alone."""
    if not HERE or not array.flags.c_contiguous or not is_mapped(array):
        return
    first = -(-array.ctypes.data // _PAGE) * _PAGE
    last = (array.ctypes.data + array.nbytes) // _PAGE * _PAGE
    if first < last:
        _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _DONTNEED)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class Streamed:
    """Arrays of a mapped file that are read through in every pass and not kept, so that the process stays under `limit` bytes.

    `with streamed.reading():` around a pass; whenever the process holds more than the limit, all their pages are given back. The
    limit should leave room for what is mapped between two looks.
    """

    __slots__ = ("_arrays", "_limit")

    def __init__(self, arrays: Iterable[np.ndarray], limit: int) -> None:
        self._arrays, self._limit = tuple(arrays), limit

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.nbytes for array in self._arrays)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Watch while the body runs, from a thread that sleeps between two looks."""
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(done,), daemon=True, name="rwkv-pages")
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(LOOK):
            self.trim()
        self.trim()

    def trim(self) -> None:
        """Give everything back if the process holds more than the limit."""
        if resident() > self._limit:
            for array in self._arrays:
                give_back(array)
