"""Pages of memory: their number and size, and giving back those of mapped files (Linux only).

A page of a read-only mapped file can always be given back: the system reads it again when it is touched,
immediately if its page cache still has it.
"""

import ctypes
import functools
import mmap
import os
import re
import sys
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np

#: whether pages can be given back here
HERE = sys.platform.startswith("linux")
_DONTNEED, _HUGEPAGE, _NOHUGEPAGE = 4, 14, 15
_PAGE = mmap.PAGESIZE
#: largest gap (bytes) between two matrices, mostly vectors, that large pages may span
_BETWEEN = 1 << 20


def resident() -> int:
    """Bytes of physical memory that this process holds now, mapped files included; 0 if unknown."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def peak() -> int:
    """The most bytes of physical memory that this process has held; 0 if unknown."""
    return _told("/proc/self/status", "VmHWM")  # getrusage's figure may be that of the parent process


def private() -> int:
    """Bytes of physical memory that this process holds now, without those of files; 0 if unknown."""
    return _told("/proc/self/status", "RssAnon")


def available() -> int:
    """Bytes of memory available without swapping; 0 if unknown."""
    return _told("/proc/meminfo", "MemAvailable")


def _told(file: str, name: str) -> int:
    """The bytes in a line such as `VmHWM:  1234 kB`; 0 if there is none."""
    try:
        for line in Path(file).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    return 0


def _stamp(descriptor: int) -> tuple[int, int]:
    about = os.fstat(descriptor)
    return about.st_size, about.st_mtime_ns


class MappedFile(mmap.mmap):
    """A whole file mapped to be read only. descriptor: of the same file, for reading it otherwise; open for
    as long as the map.

    stamp  bytes and time of the last change, as they were.
    """

    descriptor: int
    stamp: tuple[int, int]

    @classmethod
    def of(cls, descriptor: int) -> "MappedFile":
        """Map the file that is open as `descriptor`, which may be closed afterwards.

        Raises OSError; ValueError for an empty file.
        """
        mapped = cls(descriptor, 0, access=mmap.ACCESS_READ)
        mapped.descriptor = os.dup(descriptor)
        mapped.stamp = _stamp(mapped.descriptor)
        weakref.finalize(mapped, os.close, mapped.descriptor)
        return mapped

    def changed(self) -> bool:
        """Whether somebody has written to the file since, or cut it off: then reading it where it is mapped
        may end the process.
        """
        return _stamp(self.descriptor) != self.stamp

    def place(self, array: np.ndarray) -> int:
        """The byte offset in the file at which a view of it starts."""
        return int(array.ctypes.data - np.frombuffer(self, np.uint8).ctypes.data)


def mapped_file(array: np.ndarray) -> MappedFile | None:
    """The file that an array views; None if it is a copy."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    while isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, MappedFile) else None


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array is a view of a mapped file, not a copy."""
    return mapped_file(array) is not None


def give_back(array: np.ndarray) -> None:
    """Give back the pages completely inside a contiguous view of a mapped file; ignores other arrays."""
    if not HERE or not array.flags.c_contiguous or not is_mapped(array):
        return
    _advise([array], _DONTNEED)


def prefer_large(arrays: Iterable[np.ndarray]) -> None:
    """Ask for 2 MiB pages for contiguous views of mapped files, and gaps between them, before the first read.

    Measured on Linux 6.18 with ext4: touching 255 MB in the page cache took 4 ms instead of 25, and address
    translation no longer slows the reading of weights. Small pages in the page cache stay small.
    """
    if HERE:
        _advise(
            [array for array in arrays if array.flags.c_contiguous and is_mapped(array)], _HUGEPAGE, _BETWEEN
        )


def prefer_small(arrays: Iterable[np.ndarray]) -> None:
    """Ask for pages of normal size: for data that is read in parts, or given back a little at a time.

    Otherwise one row of an embedding counts 2 MiB if the page cache holds the file in large pages, and so
    does a vector between matrices that were given back.
    """
    if HERE:
        _advise([array for array in arrays if array.flags.c_contiguous and is_mapped(array)], _NOHUGEPAGE)


def give_back_code(library: str) -> None:
    """Give back the pages of a loaded library's machine code. library: its file name.

    Code that is called again is mapped again, sixteen pages at a time, from the page cache if still there.
    """
    if not HERE:
        return
    try:
        maps = Path("/proc/self/maps").read_bytes()
    except OSError:
        return  # no /proc here
    for span in re.findall(
        rb"^(\w+)-(\w+) r-xp .*/" + re.escape(os.fsencode(library)) + b"$", maps, re.MULTILINE
    ):
        first, last = (int(number, 16) for number in span)
        _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _DONTNEED)


@functools.cache
def _libc() -> ctypes.CDLL:
    """The C library, loaded once: loading it at every call took 14 of the 55 ms to load a 0.4B model."""
    return ctypes.CDLL(None)


def _advise(arrays: Iterable[np.ndarray], advice: int, gap: int = 0) -> None:
    """madvise for whole pages; a system that does not know the advice changes nothing."""
    for address, length in ranges(arrays, gap).tolist():
        _libc().madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), advice)


def ranges(arrays: Iterable[np.ndarray], gap: int = 0) -> np.ndarray:
    """[n, 2] int64: address, length of whole pages in contiguous views; joins gaps of up to `gap` bytes."""
    spans = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays)
    joined: list[list[int]] = []
    for first, last in spans:
        if joined and first <= joined[-1][1] + gap:
            joined[-1][1] = max(last, joined[-1][1])
        else:
            joined.append([first, last])
    whole = [(-(-first // _PAGE) * _PAGE, last // _PAGE * _PAGE) for first, last in joined]
    return np.array([(first, last - first) for first, last in whole if first < last], np.int64).reshape(-1, 2)
