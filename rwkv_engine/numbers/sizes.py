"""Byte counts as text: shown to users, and read from options."""

import re

from rwkv_engine.errors import OptionError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def size(count: int) -> str:
    """A byte count for users, with three digits: 512 bytes, 3.1 MB, 382 MB, 14.4 GB."""
    amount = float(count)
    for unit in ("bytes", "KB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB" if amount < 10 else f"{amount:.1f} GB"


def mb(count: int) -> str:
    """A byte count in megabytes of 10^6, rounded up: for sums, whose parts need the same unit."""
    return f"{-(-count // 10**6)} MB"


def bytes_of(text: str | int) -> int:
    """A size such as "900M", "1.5G", "2GiB", or a number of bytes. Raises OptionError.

    K, M, G are powers of 1000; Ki, Mi, Gi of 1024.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?)B?\s*", str(text).upper())
    if not found or found[2] not in _UNITS or float(found[1]) == 0:
        raise OptionError.of("ram", str(text), "a size such as 900M, 1.5G or 2GiB")
    return int(float(found[1]) * _UNITS[found[2]])
