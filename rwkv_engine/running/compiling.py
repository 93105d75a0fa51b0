"""Progress of numba's compiler, and the programs that a model needs.

A program is compiled at its first call and then cached on disk (`kernels._cache`). LLVM takes a minute or
more for it on a small computer; the time left is unknown, but the number of compiled functions is known.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rwkv_engine.kernels._cache import Listener, listen
from rwkv_engine.kernels.calling import ring

#: tell(functions compiled so far, seconds since the first, whether all is done)
Tell = Callable[[int, float, bool], None]
#: seconds of compiling before the first report (the cache takes less), and between reports
PATIENCE, INTERVAL = 0.3, 1.0


def watch(tell: Tell) -> None:
    """From now on, call `tell` while numba compiles and when it is done; not for programs from the cache."""
    listen(Watcher(tell))


class Watcher(Listener):
    """Numba's listener: counts functions; a thread of its own reports, as a busy compiler makes no calls."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._changing = threading.Lock()
        self._depth = self._functions = 0
        self._began = 0.0
        self._told = False
        self._done = threading.Event()

    def on_start(self, event: Any) -> None:
        """A function is started; the functions it calls come inside it."""
        with self._changing:
            self._depth += 1
            if self._depth > 1:
                return
            self._functions, self._began, self._told, self._done = (
                0,
                time.monotonic(),
                False,
                threading.Event(),
            )
        threading.Thread(target=self._tick, args=(self._done,), daemon=True, name="rwkv-compiling").start()

    def on_end(self, event: Any) -> None:
        """A function is done."""
        with self._changing:
            self._depth -= 1
            self._functions += 1
            if self._depth == 0:
                self._done.set()
                if self._told:
                    self._tell(self._functions, time.monotonic() - self._began, True)

    def _tick(self, done: threading.Event) -> None:
        pause = PATIENCE
        while not done.wait(pause):
            with self._changing:
                if not done.is_set():
                    self._told, pause = True, INTERVAL
                    self._tell(self._functions, time.monotonic() - self._began, False)


@dataclass(frozen=True, slots=True)
class Program:
    """Something that a model needs compiled.

    name  shown to users.
    run   the least work that makes numba compile it, or load it from the cache.
    """

    name: str
    run: Callable[[], object]


def programs(model: Any) -> tuple[Program, ...]:
    """What a `Model` needs for its first word: a forward pass, choosing a token, tokenizing long text."""
    text = "word " * 2000

    def forward() -> None:
        ring(0, 0, True)  # wakes the other threads, which a pass of two tokens may not do
        model.feed([0, 0], model.new_state())

    return (
        Program(f"the forward pass of RWKV-{model.config.version} in {model.format}", forward),
        Program("choosing tokens", lambda: list(model.generate([0], max_tokens=1))),
        Program(f"long texts into tokens ({model.tokenizer.name})", lambda: model.tokenizer.encode(text)),
    )
