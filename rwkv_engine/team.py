"""`Team`: threads that run one compiled function together and sleep in between.

Lane 0 is the caller's own thread. The others are daemon threads parked on a lock, which costs nothing; they are woken
for a call and meet inside compiled code at `kernels.lanes.barrier`. A team runs one call at a time.
"""

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rwkv_engine.errors import OptionError
from rwkv_engine.kernels.lanes import STRIDE, Lane, shared_bytes

#: more lanes than this is a typing error, not a machine
MOST_LANES = 1024


@dataclass(slots=True)
class _Desk:
    """What one helper thread and the team leave for each other."""

    call: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Lock = field(default_factory=threading.Lock)
    work: Callable[[], None] | None = None
    failure: BaseException | None = None


def _serve(desk: _Desk) -> None:
    """A helper thread's life: sleep, work, report; an empty call ends it."""
    while True:
        desk.call.acquire()
        work = desk.work
        if work is None:
            return
        try:
            work()
        except BaseException as failure:  # whatever it is, it belongs to the caller, who raises it
            desk.failure = failure
        desk.work = work = None
        desk.done.release()


def _dismiss(desks: list[_Desk], owner: int) -> None:
    """End the helper threads of a team that nobody holds any more."""
    if os.getpid() == owner:
        for desk in desks:
            desk.work = None
            desk.call.release()


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
            raise OptionError(f"threads: got {lanes!r}, want a whole number from 1 to {MOST_LANES}")
        self.lanes = lanes
        self._one_call = threading.Lock()
        # one page-aligned block of words for all lanes, one private scratch for each
        self._shared = np.zeros(shared_bytes(lanes) + STRIDE, np.uint8)
        self._rooms = [np.zeros(room, np.float32) for _ in range(lanes)]
        self._leave = None if leave is None else np.array([len(leave), *leave.reshape(-1)], np.int64)
        self._desks: list[_Desk] = []
        self._owner = 0

    def run(self, function: Callable[..., None], *arguments: Any, lanes: int | None = None) -> None:
        """Call `function(lane, *arguments)` once on each of the first `lanes` lanes (default: all); return when all have.

        Raises what a lane raised. `function` must be compiled code that releases the GIL and, with more than one lane,
        raises nothing after its first barrier.
        """
        count = min(lanes or self.lanes, self.lanes)
        with self._one_call:
            if count == 1:
                function(self._lane(0, 1), *arguments)
                return
            self._hire()
            self._shared[:] = 0
            desks = self._desks[: count - 1]
            for index, desk in enumerate(desks, start=1):
                lane = self._lane(index, count)
                desk.work = lambda lane=lane: function(lane, *arguments)
                desk.call.release()
            function(self._lane(0, count), *arguments)
            for desk in desks:
                desk.done.acquire()
            failures = [desk.failure for desk in desks if desk.failure is not None]
            for desk in desks:
                desk.failure = None
            if failures:
                raise failures[0]

    def _lane(self, index: int, count: int) -> Lane:
        """The compiled code's view of one lane; shared words start on a boundary of two cache lines."""
        address = self._shared.ctypes.data
        leave = 0 if self._leave is None else self._leave.ctypes.data
        return Lane(index, count, address + (-address) % STRIDE, self._rooms[index], leave)

    def _hire(self) -> None:
        """Start the helper threads, if this process has none yet: the first call, or the first one after a fork."""
        if self._owner == os.getpid():
            return
        self._owner = os.getpid()
        self._desks = []
        for index in range(1, self.lanes):
            desk = _Desk()
            desk.call.acquire()
            desk.done.acquire()
            self._desks.append(desk)
            threading.Thread(target=_serve, args=(desk,), daemon=True, name=f"rwkv-lane-{index}").start()
        weakref.finalize(self, _dismiss, self._desks, self._owner)
