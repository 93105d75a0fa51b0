"""Memory of this process and of this machine, where Linux tells it."""

import re
from pathlib import Path


def _bytes(file: str, name: str) -> int | None:
    """A line such as `VmHWM:  1234 kB` of a file under /proc."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(file).read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def resident() -> tuple[int | None, int | None]:
    """Bytes of this process: (the most that was resident at once, what is resident now and backed by no file)."""
    return _bytes("/proc/self/status", "VmHWM"), _bytes("/proc/self/status", "RssAnon")


def available() -> int | None:
    """Bytes of memory that can be had without swapping."""
    return _bytes("/proc/meminfo", "MemAvailable")
