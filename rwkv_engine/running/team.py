"""`Team`: threads that run one compiled function together and sleep in between.

Lane 0 is the caller's own thread. The others are daemon threads that sleep on a lock, which costs nothing. They are woken for a
call, meet inside compiled code at `kernels.lanes.barrier`, and stay there for a moment in case they are called again
(`kernels.calling`). A team runs one call at a time.
"""

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rwkv_engine.errors import OptionError
from rwkv_engine.kernels.calling import ASLEEP, CALLED, STAY, WAITING, ring
from rwkv_engine.kernels.lanes import STRIDE, Lane, shared_bytes
from rwkv_engine.system import cpu

#: more lanes than this is a typing error, not a machine
MOST_LANES = 1024
_WORDS = STRIDE // 8


@dataclass(slots=True)
class _Desk:
    """What one helper thread and the team leave for each other.

    says   the desk's words; the first is ASLEEP, WAITING or CALLED.
    alarm  ends the thread's sleep.
    guard  held while `work` and what the desk says are changed together.
    """

    says: memoryview
    alarm: threading.Lock = field(default_factory=threading.Lock)
    guard: threading.Lock = field(default_factory=threading.Lock)
    work: Callable[[], None] | None = None
    failure: BaseException | None = None

    def wake(self, work: Callable[[], None]) -> None:
        """Have the thread, which is asleep or about to be, do `work`."""
        with self.guard:
            self.work, self.failure = work, None
            self.says[0] = CALLED
        self.alarm.release()


def _serve(desk: _Desk, kept: tuple[object, ...]) -> None:
    """A helper thread's life: sleep, work; without work it ends. kept: what it may still look at when its team is gone."""
    while True:
        desk.alarm.acquire()
        work = desk.work
        if work is None:
            return
        try:
            work()
        except BaseException as failure:  # whatever it is, it belongs to the caller, who raises it
            desk.failure = failure
        with desk.guard:
            if desk.work is work:  # else it has been woken again, having said itself that it is asleep
                desk.work = None
                desk.says[0] = ASLEEP
        del work


def _dismiss(desks: list[_Desk], owner: int) -> None:
    """End the helper threads of a team that nobody holds any more, or whose interpreter is about to end: none is left polling."""
    if os.getpid() == owner:
        for desk in desks:
            while desk.says[0] == WAITING:
                time.sleep(0)
            with desk.guard:
                desk.work = None
            desk.alarm.release()


class Team:
    """Up to `lanes` threads for SPMD functions `function(lane, *arguments)`.

    lanes   1 or more; more than the machine has cores works, slower.
    room    float32 numbers of private scratch for each lane.
    leave   ranges of pages [n, 2] int64 (address, length) that are given back after every stage (see Lane); None: none.
    Raises  OptionError for a lane count that cannot be meant.
    Safe to use from several threads (calls queue up) and after os.fork (the child starts threads of its own).
    """

    def __init__(self, lanes: int, room: int = 4096, leave: np.ndarray | None = None) -> None:
        if not isinstance(lanes, int) or not 1 <= lanes <= MOST_LANES:
            raise OptionError.of("threads", lanes, f"a whole number from 1 to {MOST_LANES}")
        self.lanes = lanes
        self._one_call = threading.Lock()
        # words that all lanes share, and each one's private scratch
        self._shared, self._words = _aligned(shared_bytes(lanes)), _aligned(lanes * STRIDE)
        self._rooms = [np.zeros(room, np.float32) for _ in range(lanes)]
        self._leave = None if leave is None else np.array([len(leave), *leave.reshape(-1)], np.int64)
        self._desks: list[_Desk] = []
        self._last: tuple[Any, ...] = ()
        self._views: dict[tuple[int, int], Lane] = {}
        self._stay = STAY if lanes <= cpu.usable_cpus() else 0
        self._owner = 0

    def run(self, function: Callable[..., None], *arguments: Any, lanes: int | None = None) -> None:
        """Call `function(lane, *arguments)` once on each of the first `lanes` lanes (default: all); return when all have.

        Raises what a lane raised. `function` must be compiled code that releases the GIL and, with more than one lane,
        raises nothing after its first barrier. One that loops over `kernels.calling.attend` is called again without waking anybody
        if the arguments are the same objects; what lies in arrays may have changed.
        """
        count = min(lanes or self.lanes, self.lanes)
        with self._one_call:
            if count == 1:
                function(self._lane(0, 1), *arguments)
                return
            self._hire()
            self._call((function, count, *arguments), count)
            try:
                function(self._lane(0, count), *arguments)
                self._join(self._desks[: count - 1])
            except BaseException:
                self._last = ()
                raise

    def _join(self, desks: list[_Desk]) -> None:
        """Wait until nobody is at work; raise what a helper raised."""
        wait = 0.0
        for desk in desks:
            while desk.says[0] == CALLED:  # hardly ever after a function that ends with a barrier
                time.sleep(wait)
                wait = min(wait + 1e-5, 1e-3)
            if desk.failure is not None:
                raise desk.failure

    def _call(self, work: tuple[Any, ...], count: int) -> None:
        """Have the first `count` - 1 helpers run `work`: a function, how many lanes run it, and its arguments."""
        again = len(work) == len(self._last) and all(
            new is old for new, old in zip(work, self._last, strict=True)
        )
        self._last = ()
        asleep = ring(self._words.ctypes.data, count - 1, again)
        if not again:
            self._shared[:] = 0
        if asleep:
            function, _, *arguments = work
            for index, desk in enumerate(self._desks[: count - 1], start=1):
                if desk.says[0] == ASLEEP:
                    desk.wake(functools.partial(function, self._lane(index, count), *arguments))
        self._last = work

    def _lane(self, index: int, count: int) -> Lane:
        """The compiled code's view of one of `count` lanes."""
        if (index, count) not in self._views:
            leave = 0 if self._leave is None else self._leave.ctypes.data
            desk = self._words.ctypes.data + (index - 1) * STRIDE if index else 0
            self._views[index, count] = Lane(
                index, count, self._shared.ctypes.data, self._rooms[index], leave, desk, self._stay
            )
        return self._views[index, count]

    def _hire(self) -> None:
        """Start the helper threads, if this process has none yet: the first call, or the first one after a fork."""
        if self._owner == os.getpid():
            return
        self._owner = os.getpid()
        self._desks, self._last = [], ()
        self._words[:] = ASLEEP
        kept = self._shared, self._words, self._leave
        for index in range(1, self.lanes):
            desk = _Desk(self._words[_WORDS * (index - 1) :].data)
            desk.alarm.acquire()
            self._desks.append(desk)
            threading.Thread(target=_serve, args=(desk, kept), daemon=True, name=f"rwkv-lane-{index}").start()
        weakref.finalize(self, _dismiss, self._desks, self._owner)


def _aligned(size: int) -> np.ndarray:
    """`size` zeroed bytes as int64 words that start on a boundary of STRIDE."""
    block = np.zeros(size // 8 + _WORDS, np.int64)
    first = -block.ctypes.data % STRIDE // 8
    return block[first : first + size // 8]
