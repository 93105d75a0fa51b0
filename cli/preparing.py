"""A model's programs, compiled or loaded by a helper thread: whoever waits for it hears ctrl-C at once.

A compiler at work is one long call that no signal interrupts, so it must not run in the main thread.
"""

import os
import sys
import threading
from typing import TYPE_CHECKING

from rwkv_engine.system.threads import started

if TYPE_CHECKING:
    from rwkv_engine import Model

_at_work: set[threading.Thread] = set()


class Preparation:
    """Makes the first word of some models quick.

    models  the models.    long  whether long texts will be tokenized.
    """

    __slots__ = ("_done", "_failure", "_long", "_models", "_thread")

    def __init__(self, *models: "Model", long: bool = True) -> None:
        self._models, self._long = models, long
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._done = threading.Event()

    def start(self) -> None:
        """Begin, if that was not done."""
        if self._thread is None and not self._done.is_set():
            self._thread = started(self._work, name="rwkv-preparing")
            if self._thread is None:  # refused by the system: ctrl-C is heard behind it
                self._work()
            else:
                _at_work.add(self._thread)

    def wait(self, seconds: float | None = None) -> bool:
        """Begin, and wait until all is ready, or so long; whether all is ready.

        Raises what went wrong, and KeyboardInterrupt at once.
        """
        self.start()
        done = self._done.wait(seconds)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return done

    def _work(self) -> None:
        from rwkv_engine.running.compiling import programs

        try:
            for model in self._models:
                for program in programs(model, self._long):
                    program.run()
        except BaseException as failure:  # raised where it is waited for
            self._failure = failure
        finally:
            self._done.set()
            _at_work.discard(threading.current_thread())


def leave(code: int) -> None:
    """End the process at once if a thread still compiles: it would not notice that the interpreter goes, and
    the compiler's own cleaning up would meet it at work.
    """
    if any(thread.is_alive() for thread in _at_work):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                pass
        os._exit(code)
