"""Threads where the system may refuse them: by a limit on processes (containers), or for lack of memory."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Piece = TypeVar("Piece")


def started(work: Callable[..., object], *given: Any, name: str) -> threading.Thread | None:
    """A daemon thread at `work(*given)`, or None where the system refuses it."""
    thread = threading.Thread(target=work, args=given, daemon=True, name=name)
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        return None
    return thread


def each(work: Callable[[Piece], object], pieces: Iterable[Piece], threads: int) -> None:
    """Call `work` for every piece, by so many threads, or by this one where the system refuses them.

    A piece may then be worked on twice. Raises what `work` raises.
    """
    from concurrent.futures import ThreadPoolExecutor

    pieces = list(pieces)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, pieces))
    except (RuntimeError, MemoryError):
        for piece in pieces:
            work(piece)
