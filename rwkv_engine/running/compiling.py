"""Progress of numba's compiler, and the programs that a model needs.

A program is compiled at its first call and then cached on disk (`kernels._cache`). LLVM takes a minute or
more for it on a small computer; the time left is unknown, but the number of compiled functions is known.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwkv_engine.kernels._cache import Listener, listen
from rwkv_engine.kernels.calling import ring
from rwkv_engine.system.threads import started
from rwkv_engine.writing.choosing import Chooser, log_probability
from rwkv_engine.writing.history import History
from rwkv_engine.writing.sampling import Sampling

#: tell(functions compiled so far, seconds since the first, whether all is done)
Tell = Callable[[int, float, bool], None]
#: seconds of compiling before the first report (the cache takes less), and between reports
PATIENCE, INTERVAL = 0.3, 1.0
_PACKAGE = __name__.partition(".")[0]
_LOG = logging.getLogger(_PACKAGE)


class Watcher(Listener):
    """Numba's listener: counts functions; a thread of its own reports, as a busy compiler makes no calls.

    tell   called with the progress; may be exchanged.
    of     what the names of modules begin with whose functions count; others are the caller's own.
    Numba holds a lock while it compiles, so one program is counted at a time.
    """

    def __init__(self, tell: Tell, of: str = "") -> None:
        self.tell = tell
        self._of = of
        self._changing = threading.Lock()
        self._depth = self._functions = 0
        self._began = 0.0
        self._ours = self._told = False
        self._done = threading.Event()

    def on_start(self, event: Any) -> None:
        """A function is started; the functions it calls come inside it."""
        with self._changing:
            self._depth += 1
            if self._depth > 1:
                return
            self._ours = not self._of or _module(event).startswith(self._of)
            if not self._ours:
                return
            self._functions, self._began, self._told = 0, time.monotonic(), False
            self._done = threading.Event()
        started(self._tick, self._done, name="rwkv-compiling")  # where it is refused, nothing is told

    def on_end(self, event: Any) -> None:
        """A function is done."""
        with self._changing:
            self._depth -= 1
            self._functions += 1
            if self._depth == 0 and self._ours:
                self._done.set()
                if self._told:
                    self.tell(self._functions, time.monotonic() - self._began, True)

    def _tick(self, done: threading.Event) -> None:
        pause = PATIENCE
        while not done.wait(pause):
            with self._changing:
                if not done.is_set():
                    self._told, pause = True, INTERVAL
                    self.tell(self._functions, time.monotonic() - self._began, False)


def _module(event: Any) -> str:
    """The module of the function that is compiled."""
    function = getattr(event.data.get("dispatcher"), "py_func", None)
    return getattr(function, "__module__", None) or ""


class _Log:
    """`Tell` for programs that set none: one line in the log, and no more from this process."""

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said = False

    def __call__(self, functions: int, seconds: float, done: bool) -> None:
        if not self._said:
            self._said = True
            _LOG.warning("rwkv_engine compiles for this processor, once; later starts are quick")


_log = _Log()


@functools.cache
def watcher() -> Watcher:
    """The one of this process, which listens from the first call on. It tells the log, if nobody else."""
    made = Watcher(_log, _PACKAGE)
    listen(made)
    return made


def watch_compiling(tell: Tell | None) -> None:
    """From now on, call `tell` while programs are compiled; not where they come from the cache on disk.

    tell  tell(functions compiled so far, seconds, whether that is all): about once a second, in a thread of
          its own. It replaces the line that the logger "rwkv_engine" writes for the first compiling of a
          process. None: that line again.
    """
    watcher().tell = _log if tell is None else tell


@dataclass(frozen=True, slots=True)
class Program:
    """Something that a model needs compiled.

    name  shown to users.
    run   the least work that makes numba compile it, or load it from the cache.
    """

    name: str
    run: Callable[[], object]


def programs(model: Any, long: bool = True) -> tuple[Program, ...]:
    """What a `Model` needs for its first word: a forward pass, choosing a token, and for `long` prompts
    tokenizing long text. Its weights are not read.
    """
    text = "word " * 2000

    def forward() -> None:
        ring(0, 0, True)  # wakes the other threads, which a pass of two tokens may not do
        model.prepare()

    def choosing() -> None:
        logits = np.zeros(model.vocab, np.float32)
        log_probability(logits, Chooser(Sampling(), model.vocab).pick(logits, History()))

    tokens = Program(f"long texts into tokens ({model.tokenizer.name})", lambda: model.tokenizer.encode(text))
    return (
        Program(f"the forward pass of RWKV-{model.config.version} in {model.format}", forward),
        Program("choosing tokens", choosing),
        *((tokens,) if long else ()),
    )
