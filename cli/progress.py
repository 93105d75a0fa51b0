"""The notice while numba compiles: on a terminal one counting line, elsewhere a line every half minute."""

from rwkv_engine_cli.output import complain, progress, shows_progress

#: seconds between two lines where there is no terminal
QUIET = 30.0


def counting(functions: int, seconds: float) -> str:
    """The line that counts. What counts comes first: a narrow terminal shows it too."""
    return f"compiling {seconds:.0f} s, {functions} functions; once for this processor"


class Compiling:
    """`rwkv_engine.watch_compiling`'s `tell` for people, on standard error."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: float | None = None

    def __call__(self, functions: int, seconds: float, done: bool) -> None:
        """Show the progress."""
        if shows_progress():
            line = f"compiled {functions} functions in {seconds:.0f} s; later starts are quick"
            progress(f"rwkv: {line if done else counting(functions, seconds)}", last=done)
        elif self._last is None:
            complain("compiling for this processor, once; later starts are quick ...")
            self._last = 0.0
        elif not done and seconds - self._last >= QUIET:
            complain(f"still compiling: {functions} functions, {seconds:.0f} s")
            self._last = seconds
