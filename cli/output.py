"""Printing. On a terminal, text is shown without control characters and escape sequences.

Models, checkpoints and saved conversations hold text from others. Printed raw, it could move the cursor,
change the window's title or write to the clipboard. So every verb prints through this file. A pipe gets the
exact text.
"""

import os
import re
import sys
import textwrap
from io import TextIOWrapper
from typing import TextIO

#: a whole escape sequence, a string sequence (window title, clipboard) up to its end or the line's, or one
#: character
_HIDDEN = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]?"
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
#: a sequence that the next piece of text may go on with
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\n]*\x1b?|[ -/]*)\Z")
#: characters of an escape sequence that come after its parameters
_MIDDLE = tuple(map(chr, range(0x20, 0x30)))


def visible(text: str) -> str:
    """The text without escape sequences and control characters, except newline and tab."""
    return _HIDDEN.sub("", text)


class Visible:
    """`visible` for text in pieces: an escape sequence may begin in one piece and end in another."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = ""

    def __call__(self, text: str) -> str:
        """The visible part of this piece."""
        text = self._begun + text
        found = _BEGUN.search(text)
        if found is None:
            self._begun = ""
            return visible(text)
        # enough to know how it goes on: its beginning, and the last character if no parameter can follow it
        start, last = found[0][:2], found[0][2:][-1:]
        self._begun = start + last * (last == "\x1b" or (start == "\x1b[" and last in _MIDDLE))
        return visible(text[: found.start()])


class Stream:
    """Standard output for text that is written piece by piece."""

    __slots__ = ("_visible",)

    def __init__(self) -> None:
        self._visible = Visible() if sys.stdout.isatty() else str

    def write(self, text: str) -> None:
        """Write a piece at once."""
        sys.stdout.write(self._visible(text))
        sys.stdout.flush()


def echo(text: object = "", *, end: str = "\n", err: bool = False) -> None:
    """Print text to standard output, or to standard error."""
    out = sys.stderr if err else sys.stdout
    out.write((visible(str(text)) if out.isatty() else str(text)) + end)
    out.flush()


def tell(text: object, *, err: bool = False) -> None:
    """Print sentences; a line that the terminal is too narrow for is broken between two words."""
    width = columns(sys.stderr if err else sys.stdout)
    lines = str(text).splitlines() if width else [str(text)]
    for line in lines or [""]:
        if 0 < width < len(line):
            line = "\n".join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False))
        echo(line, err=err)


def complain(text: object) -> None:
    """Print one line on standard error; do nothing if that cannot be written."""
    try:
        tell(f"rwkv: {' '.join(str(text).split())}", err=True)
    except OSError:
        silence(sys.stderr)


def typed(line: str) -> str:
    """What a person typed; bytes that are no text in the terminal's encoding are read as UTF-8, or replaced."""
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def to_clipboard(data: str) -> None:
    """Ask the terminal to put base64 of a text into its clipboard (OSC 52); not every terminal does."""
    print(f"\x1b]52;c;{data}\a", end="", flush=True)


def columns(stream: TextIO) -> int:
    """How many columns the terminal behind a stream has; 0 where there is none, or it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):
        return 0


def obeys(stream: TextIO) -> bool:
    """Whether a stream is a terminal that knows escape sequences."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def shows_progress() -> bool:
    """Whether standard error is a terminal that can write over a line."""
    return obeys(sys.stderr)


def progress(text: str, *, last: bool = False) -> None:
    """Show progress on a terminal, each line over the one before; print nothing elsewhere.

    A line that the terminal is too narrow for is cut: of a wrapped one, only a part could be written over.
    """
    if not shows_progress():
        return
    width, shown = columns(sys.stderr), visible(text)
    sys.stderr.write(f"\r\x1b[K{shown if width < 2 or last else shown[: width - 1]}" + ("\n" if last else ""))
    sys.stderr.flush()


def open_streams() -> None:
    """Make the standard streams safe: closed ones are discarded, characters that the locale lacks become "?"."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    if isinstance(sys.stdin, TextIOWrapper):
        # a person may type a byte that is no text; a file that has one is refused
        sys.stdin.reconfigure(errors="surrogateescape" if sys.stdin.isatty() else "strict")
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, TextIOWrapper):
            out.reconfigure(errors="replace")


def silence(stream: TextIO) -> None:
    """Discard a stream that cannot be written, so that Python's flush at exit does not fail again."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
