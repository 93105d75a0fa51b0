"""Pages of memory: how many this process holds, and giving back those of mapped files (Linux; elsewhere nothing is given back).

A page of a read-only mapped file can always be given back: the system reads it again when it is touched, at once if its page cache
still has it.
"""

import ctypes
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

#: whether pages can be given back here
HERE = sys.platform.startswith("linux")
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
    return _told("/proc/self/status", "VmHWM")  # not getrusage's figure, which may be that of the process that started this one


def private() -> int:
    """Bytes of physical memory that this process holds now and that are no file's; 0 where the system does not tell."""
    return _told("/proc/self/status", "RssAnon")


def available() -> int:
    """Bytes of memory that can be had without swapping; 0 where the system does not tell."""
    return _told("/proc/meminfo", "MemAvailable")


def _told(file: str, name: str) -> int:
    """The bytes in a line such as `VmHWM:  1234 kB`; 0 where there is none."""
    try:
        for line in Path(file).read_text().splitlines():
            if line.startswith(f"{name}:"):
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
    for address, length in ranges([array]).tolist():
        _libc().madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), _DONTNEED)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def ranges(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """[n, 2] int64: address and length of the whole pages inside contiguous views of mapped files, neighbours joined."""
    spans = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays)
    joined: list[list[int]] = []
    for first, last in spans:
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(last, joined[-1][1])
        else:
            joined.append([first, last])
    whole = [(-(-first // _PAGE) * _PAGE, last // _PAGE * _PAGE) for first, last in joined]
    return np.array([(first, last - first) for first, last in whole if first < last], np.int64).reshape(-1, 2)
