"""What a process with the engine in it takes of memory besides a model, and how much there is."""

import os
from pathlib import Path

#: bytes that Python, NumPy, numba, and the engine's compiled programs hold (measured: 3.11, numba 0.68,
#: Linux, x86-64)
BASE = 94_000_000
#: bytes of LLVM's own code that linking a program takes, before weights are read; on Linux they are given
#: back then
LINKING = 36_000_000
#: bytes of the World vocabulary's tables; other tokenizers take less
TOKENIZER = 8_000_000
#: what compiling a program takes on top, once: until it is in the cache
COMPILING = 172_000_000
#: what a process may come to take besides the weights
PROCESS = BASE + TOKENIZER + COMPILING
#: where a control group says how much memory its processes may use
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def physical_memory() -> int | None:
    """Bytes of memory that this process may use at most: the machine's, or what a container allows.

    None: nobody says.
    """
    found = []
    try:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        pass  # not a POSIX system
    for limit in _LIMITS:
        try:
            found.append(int(limit.read_text()))
        except (OSError, ValueError):
            continue  # no such control group, or "max"
    return min((number for number in found if number > 0), default=None)
