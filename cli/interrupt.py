"""Ctrl-C while a text is written: the first one ends it between two tokens, so that what was written counts."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupt:
    """Whether somebody pressed ctrl-C: the `cancel` of a generation.

    begun  set it when the first token is there. Before that, ctrl-C is a KeyboardInterrupt, and so is a second one.
    """

    __slots__ = ("_asked", "begun")

    def __init__(self) -> None:
        self._asked = self.begun = False

    def is_set(self) -> bool:
        """Whether to end now."""
        return self._asked

    def _press(self, number: int, frame: object) -> None:
        if self._asked or not self.begun:
            raise KeyboardInterrupt
        self._asked = True


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Hear ctrl-C as an `Interrupt` inside."""
    interrupt = Interrupt()
    before = signal.signal(signal.SIGINT, interrupt._press)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
