"""A terminal for tests: runs a program on a pseudo-terminal and shows what a person would see."""

import os
import shlex
import signal
import sys
import time

import pexpect
import pyte


class Terminal:
    """`rwkv` with these arguments on a screen of so many columns and rows; `text()` is all that was ever on
    it, `raw` every byte that came. With `shell`, a shell with job control starts it, with this at the end of
    the command. `program` is what Python runs instead of the command's module. `drawn` makes the screen wider
    than the program is told, so that a line too long for it is seen as one.
    """

    def __init__(
        self,
        arguments,
        columns=200,
        rows=40,
        shell=None,
        program=("-m", "rwkv_engine_cli.app"),
        drawn=None,
        **environment,
    ):
        self.screen = pyte.HistoryScreen(drawn or columns, rows, history=5000)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        command = [sys.executable, *program, *arguments]
        started = command if shell is None else ["bash", "--norc", "-i"]
        # COLUMNS and LINES of the surroundings would hide this screen's size
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.program = pexpect.spawn(
            started[0],
            started[1:],
            dimensions=(rows, columns),
            env={**kept, "TERM": "xterm-256color", "PS1": "$ ", **environment},
            # a shell has it ignored by what it starts with &
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.program.delaybeforesend = None
        if shell is not None:
            self.wait(lambda: self.line() == "$")
            self.program.send(f"{shlex.join(command)} {shell}\r")

    def wait(self, until, seconds=60):
        """Read the program's output until `until()` is true or it ends; fails after so many seconds."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, f"waited in vain; the screen:\n{self.text()}"
            try:
                data = self.program.read_nonblocking(65536, 0.05)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                return
            self.raw += data
            self._stream.feed(data)
            if b"\x1b[6n" in data:  # the program asks where the cursor is
                self.program.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R".encode())

    def text(self):
        """What was and is on the screen, line by line."""
        lines = [*self.screen.history.top, *(self.screen.buffer[y] for y in range(self.screen.lines))]
        return "\n".join(map(_shown, lines)).rstrip()

    def line(self):
        """The line that the cursor is in."""
        return _shown(self.screen.buffer[self.screen.cursor.y])

    def prompts(self):
        """How many prompts there have been."""
        return sum(line.startswith(">") for line in self.text().splitlines())

    def ready(self):
        """Wait for an empty prompt."""
        self.wait(lambda: self.line() == ">" and self.screen.cursor.x == 2)

    def type(self, keys, shown=None):
        """Press keys, and wait until the line is `> shown` (by default: the keys)."""
        self.program.send(keys)
        self.wait(lambda: self.line() == f"> {keys if shown is None else shown}".rstrip())

    def say(self, line):
        """Type a line, press Enter, wait for the next prompt; what was shown between."""
        count = self.prompts()
        self.type(line)
        self.program.send("\r")
        self.wait(lambda: self.prompts() > count)
        self.ready()
        text = self.text().splitlines()
        end = max(n for n, shown in enumerate(text) if shown == ">")
        start = max(n for n in range(end) if text[n] == f"> {line}".rstrip())
        return "\n".join(text[start + 1 : end]).rstrip()

    def close(self):
        """End the program, whatever it does."""
        self.program.close(force=True)


def _shown(line):
    """A line of pyte's: cells by column, those never written left out."""
    return "".join(line[x].data for x in range(max(line, default=-1) + 1)).rstrip()
