"""Ctrl-C while a text is written: the first one ends it between two tokens, and keeps what was written."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupt:
    """Whether ctrl-C was pressed: the `cancel` of a generation.

    begun  set when the first token has come. Before that, ctrl-C raises KeyboardInterrupt; so does a second
           one.
    """

    __slots__ = ("_asked", "begun")

    def __init__(self) -> None:
        self._asked = self.begun = False

    def is_set(self) -> bool:
        """Whether to stop now."""
        return self._asked

    def _press(self, number: int, frame: object) -> None:
        if self._asked or not self.begun:
            raise KeyboardInterrupt
        self._asked = True


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn ctrl-C into an `Interrupt` inside the block."""
    interrupt = Interrupt()
    before = signal.signal(signal.SIGINT, interrupt._press)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
