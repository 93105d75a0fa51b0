"""The notice while numba compiles: on a terminal one counting line, elsewhere a line every half minute."""

import sys
from typing import TextIO

#: seconds between two lines where there is no terminal
QUIET = 30.0


class Compiling:
    """`rwkv_engine.running.compiling.Tell` for people, on standard error."""

    __slots__ = ("_last", "_out")

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out
        self._last: float | None = None

    def __call__(self, functions: int, seconds: float, done: bool) -> None:
        """Show the progress."""
        out = self._out or sys.stderr  # as it is now: who embeds the command may exchange it
        if out.isatty():
            end = "; later starts are quick\n" if done else " ..."
            print(
                f"\rrwkv: compiling for this processor, once: {functions} functions, {seconds:.0f} s{end}",
                end="",
                file=out,
                flush=True,
            )
        elif self._last is None:
            print(
                "rwkv: compiling for this processor, once; later starts are quick ...", file=out, flush=True
            )
            self._last = 0.0
        elif not done and seconds - self._last >= QUIET:
            print(f"rwkv: still compiling: {functions} functions, {seconds:.0f} s", file=out, flush=True)
            self._last = seconds
