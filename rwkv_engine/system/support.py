"""Refuses unsupported systems before anything heavy is imported; numba would fail with long tracebacks."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES

from rwkv_engine.errors import UnsupportedSystem


def refusal(bits: int, suffix: str, byteorder: str) -> str | None:
    """One sentence that says why a Python cannot run the engine, or None.

    bits       of its addresses.
    suffix     of its extension modules, such as ".cpython-311-x86_64-linux-musl.so".
    byteorder  "little" or "big".
    """
    if bits != 64:
        return f"this Python is a {bits}-bit program, and LLVM compiles for 64 bits; install a 64-bit system and Python"
    if "-musl" in suffix:
        return "this Python is built on musl (Alpine Linux), for which numba has no packages; use a system with glibc such as Debian"
    if byteorder != "little":
        return "this processor stores numbers with the highest byte first, model files the lowest; use x86-64 or AArch64"
    return None


def check() -> None:
    """Raise UnsupportedSystem if the engine cannot run here."""
    reason = refusal(sys.maxsize.bit_length() + 1, EXTENSION_SUFFIXES[0], sys.byteorder)
    if reason:
        raise UnsupportedSystem(reason)
