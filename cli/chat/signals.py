"""Signals that stop or end a conversation on a terminal: the terminal is first put back as it was."""

import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: show the cursor, end bracketed paste
_PUT_BACK = b"\x1b[?25h\x1b[?2004l"


@contextmanager
def terminal_put_back(again: bytes = b"") -> Iterator[None]:
    """Inside the block, SIGTSTP (ctrl-Z) and SIGTERM find the terminal as it was before the block.

    again  what is sent to the terminal when the process goes on after a stop.
    """
    before = _modes()

    def leave(number: int, frame: object) -> None:
        now = _modes()
        if _is_in_front():  # else the shell has the terminal, and to set its modes would stop this process
            _set(before, _PUT_BACK)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        signal.signal(number, leave)  # only a stopped process comes here, when it goes on
        _set(now, again)

    # who ignores one of them, as a shell without job control does, still ignores it
    ours = [one for one in (signal.SIGTSTP, signal.SIGTERM) if signal.getsignal(one) is signal.SIG_DFL]
    for one in ours:
        signal.signal(one, leave)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


def _modes() -> list[Any] | None:
    """The terminal's modes, or None where there is no terminal."""
    try:
        return termios.tcgetattr(sys.stdin)
    except (OSError, ValueError, termios.error):
        return None


def _is_in_front() -> bool:
    """Whether this process's group has the terminal."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def _set(modes: list[Any] | None, codes: bytes) -> None:
    """Set modes, and send codes; a terminal that has gone is left alone."""
    try:
        if modes is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, modes)
        os.write(sys.stdout.fileno(), codes)
    except (OSError, ValueError, termios.error):
        return
