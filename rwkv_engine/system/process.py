"""Memory that a process with the engine takes besides the model, and how much memory there is."""

import os
from pathlib import Path

#: bytes of Python, NumPy, numba, tokenizers and the compiled programs (measured: 3.11, numba 0.68, Linux, x86-64)
BASE = 97_000_000
#: bytes of LLVM's own code for linking a program, before weights are read; Linux gives them back afterwards
LINKING = 36_000_000
#: bytes of the World vocabulary's tables; other tokenizers take less
TOKENIZER = 8_000_000
#: extra bytes while a program is compiled, until it is in the cache
COMPILING = 172_000_000
#: the most a process may take besides the weights
PROCESS = BASE + TOKENIZER + COMPILING
#: memory limits of control groups
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def physical_memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or a container's limit; None if unknown."""
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
