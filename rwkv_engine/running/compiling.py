"""What is compiled, and what that is like to wait for: progress of numba's compiler, and the programs that a
model needs.

A program is compiled when it is first called and then kept on disk (`kernels._cache`). LLVM takes a minute or
more for one on a small computer; how much is left cannot be known, but how many functions are done can.
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
#: seconds of compiling before anything is told (what comes from the cache takes less), and then between two
#: times
PATIENCE, INTERVAL = 0.3, 1.0


def watch(tell: Tell) -> None:
    """From now on, for the life of the process, call `tell` while numba compiles and when it has; never for
    what the cache has.
    """
    listen(Watcher(tell))


class Watcher(Listener):
    """Numba's listener: it counts functions, and tells from a thread of its own, because a compiler at work
    calls nobody.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._changing = threading.Lock()
        self._depth = self._functions = 0
        self._began = 0.0
        self._told = False
        self._done = threading.Event()

    def on_start(self, event: Any) -> None:
        """A function is begun; those that it calls come inside it."""
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

    name  for people.     run  the least work that makes numba compile it, or take it from the cache.
    """

    name: str
    run: Callable[[], object]


def programs(model: Any) -> tuple[Program, ...]:
    """What a `Model` needs before its first word: its forward pass, choosing a token, and long texts' way
    into tokens.
    """
    text = "word " * 2000

    def forward() -> None:
        ring(0, 0, True)  # calls the other lanes, which a pass of two tokens may not be worth
        model.feed([0, 0], model.new_state())

    return (
        Program(f"the forward pass of RWKV-{model.config.version} in {model.format}", forward),
        Program("choosing tokens", lambda: list(model.generate([0], max_tokens=1))),
        Program(f"long texts into tokens ({model.tokenizer.name})", lambda: model.tokenizer.encode(text)),
    )
