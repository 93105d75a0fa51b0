"""`Team`: threads that run one compiled function together and sleep between calls.

Lane 0 is the caller's own thread. The others are daemon threads that sleep on a lock, at no cost. They are
woken for a call, synchronise inside compiled code at `kernels.lanes.barrier`, and wait there for a moment in
case of another call (`kernels.calling`). A team runs one call at a time.

An interrupt (ctrl-C) may come between any two lines of Python here, but never inside compiled code. Therefore
everything a call needs is compiled before any helper is called. If the caller's lane does not come, the call
is broken off: the helpers stop waiting for it and run to their end before the exception is raised. So no
helper still uses the memory of a call that is over.
"""

import functools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numba
import numpy as np

from rwkv_engine.errors import EngineError, OptionError
from rwkv_engine.kernels.calling import ASLEEP, CALLED, STAY, WAITING, ring
from rwkv_engine.kernels.lanes import BROKEN, STRIDE, TURN, Lane, shared_bytes
from rwkv_engine.system import cpu

#: more threads than this must be a typing error
MOST_LANES = 1024
_WORDS = STRIDE // 8
_TURN = TURN * _WORDS
#: functions to call when a turn is over
Later = deque[Callable[[], None]]
Result = TypeVar("Result")


class _Here(threading.local):
    """State of the current thread: `later` of the team whose turn it has or that it helps, or None."""

    later: Later | None = None


_here = _Here()
_teams: "weakref.WeakSet[Team]" = weakref.WeakSet()


def behind_this_turn() -> Later | None:
    """If this thread is inside a team's turn: the functions to call after it, to which more can be added."""
    return _here.later


@dataclass(slots=True)
class _Desk:
    """Shared by one helper thread and the team.

    says   the desk's words; the first is ASLEEP, WAITING or CALLED.
    alarm  ends the thread's sleep.
    guard  held while `work` and `says` are changed together.
    """

    says: memoryview
    alarm: threading.Lock = field(default_factory=threading.Lock)
    guard: threading.Lock = field(default_factory=threading.Lock)
    work: Callable[[], None] | None = None
    failure: BaseException | None = None

    def wake(self, work: Callable[[], None]) -> None:
        """Make the thread, which is asleep or about to be, do `work`."""
        with self.guard:
            self.work, self.failure = work, None
            self.says[0] = CALLED
            self.alarm.release()  # no call between these two lines, so no interrupt


def _serve(desk: _Desk, shared: np.ndarray, later: Later, kept: tuple[object, ...]) -> None:
    """A helper thread: sleep, work; ends without work. kept: arrays it may use after its team is gone."""
    _here.later = later
    while True:
        desk.alarm.acquire()
        work = desk.work
        if work is None:
            return
        try:
            work()
        except BaseException as failure:  # the caller raises it
            desk.failure = failure
            shared[_TURN] = BROKEN  # the others need not wait for this lane
        with desk.guard:
            if desk.work is work:  # else it was woken again after saying that it sleeps
                desk.work = None
                desk.says[0] = ASLEEP
        del work


def _dismiss(desks: list[_Desk], owner: int) -> None:
    """End the helper threads of a team that is no longer used, or at exit, so that none is left polling.

    A generator that still runs at exit runs alone: `desks` is then empty.
    """
    while desks and os.getpid() == owner:
        desk = desks.pop()
        while desk.says[0] == WAITING:
            time.sleep(0)
        with desk.guard:
            desk.work = None
        desk.alarm.release()


def _forked() -> None:
    """In a forked child: the thread that had a team's turn does not exist here."""
    for team in list(_teams):
        team.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Team:
    """Up to `lanes` threads for SPMD functions `function(lane, *arguments)`.

    lanes   1 or more. More than there are cores works, but is slower. Fewer after the first call if the
            system refuses to start threads.
    room    float32 numbers of private scratch per lane.
    leave   ranges of pages [n, 2] int64 (address, length) to give back after every stage (see Lane), or None.
    Raises  OptionError for an invalid number of lanes.
    It may be used from several threads (calls are queued) and after os.fork (the child starts its own
    threads).
    """

    def __init__(self, lanes: int, room: int = 4096, leave: np.ndarray | None = None) -> None:
        if not isinstance(lanes, int) or not 1 <= lanes <= MOST_LANES:
            raise OptionError.of("threads", lanes, f"a whole number from 1 to {MOST_LANES}")
        self.lanes = lanes
        # words shared by all lanes, and their private scratch
        self._shared, self._words = _aligned(shared_bytes(lanes)), _aligned(lanes * STRIDE)
        self._at = self._words.ctypes.data
        self._rooms = [np.zeros(room, np.float32) for _ in range(lanes)]
        self._leave = None if leave is None else np.array([len(leave), *leave.reshape(-1)], np.int64)
        self._desks: list[_Desk] = []
        self._last: tuple[Any, ...] = ()
        self._views: dict[tuple[int, int], Lane] = {}
        self._stay = STAY if lanes <= cpu.usable_cpus() else 0
        self._owner = 0
        self._later: Later = deque()
        self.renew()
        _teams.add(self)

    def renew(self) -> None:
        """Forget which thread has the turn."""
        self._one = threading.RLock()

    def turn(self, work: Callable[[], Result]) -> Result:
        """Call `work` while no other thread uses this team, then the postponed functions; return its result.

        Raises EngineError in a thread that already has a turn of any team, or is a helper: the garbage
        collector and signal handlers can call anything anywhere, and would wait for themselves.
        """
        if _here.later is not None:
            raise EngineError(
                "a pass was asked for inside a pass, by a handler of a signal or by what the garbage collector calls; "
                "ask for it outside of those"
            )
        try:
            with self._one:
                _here.later = self._later
                try:
                    result = work()
                finally:
                    _here.later = None
        finally:
            while self._later:
                try:
                    put_off = self._later.popleft()
                except IndexError:  # another thread took it
                    break
                put_off()
        return result

    def run(self, function: Callable[..., None], *arguments: Any, lanes: int | None = None) -> None:
        """Call `function(lane, *arguments)` once on each of the first `lanes` lanes (default: all), and wait.

        Raises what a lane raised. `function` must be compiled code that releases the GIL and, with more than
        one lane, raises nothing after its first barrier. A function that loops over `kernels.calling.attend`
        is called again without waking threads if the arguments are the same objects; the content of arrays
        may have changed.
        """
        with self._one:
            count = min(lanes or self.lanes, self.lanes)
            if count > 1:
                count = min(count, 1 + self._hire())
            if count == 1:
                function(self._lane(0, 1), *arguments)
                return
            work = (function, count, *arguments)
            again = len(work) == len(self._last) and all(
                new is old for new, old in zip(work, self._last, strict=True)
            )
            if not again:
                self.prepare(function, *arguments)
            try:
                self._call(work, again)
                function(self._lane(0, count), *arguments)
                self._join(self._desks[: count - 1])
            except BaseException:
                # nothing is called until `ring` returns, so no second interrupt either
                self._last, self._shared[_TURN] = (), BROKEN
                ring(self._at, count - 1, False)
                raise

    def prepare(self, function: Callable[..., None], *arguments: Any) -> None:
        """Compile `function` for these arguments, or load it from disk, so that `run` need not."""
        dispatcher: Any = function
        if hasattr(dispatcher, "signatures"):  # else a plain function
            kinds = tuple(map(numba.typeof, (self._lane(0, 1), *arguments)))
            if kinds not in dispatcher.signatures:
                dispatcher.compile(kinds)

    def _join(self, desks: list[_Desk]) -> None:
        """Wait until all helpers have finished; raise what one raised."""
        wait = 0.0
        for desk in desks:
            while desk.says[0] == CALLED:  # rare after a function that ends with a barrier
                time.sleep(wait)
                wait = min(wait + 1e-5, 1e-3)
            if desk.failure is not None:
                raise desk.failure

    def _call(self, work: tuple[Any, ...], again: bool) -> None:
        """Make the helpers run `work` (function, lane count, arguments). again: it is what they ran last."""
        function, count, *arguments = work
        self._last = ()
        asleep = ring(self._at, count - 1, again)
        if not again:
            self._shared[:] = 0
        if asleep:
            for index, desk in enumerate(self._desks[: count - 1], start=1):
                if desk.says[0] == ASLEEP:
                    desk.wake(functools.partial(function, self._lane(index, count), *arguments))
        self._last = work

    def _lane(self, index: int, count: int) -> Lane:
        """The `Lane` of one of `count` lanes."""
        if (index, count) not in self._views:
            leave = 0 if self._leave is None else self._leave.ctypes.data
            desk = self._words.ctypes.data + (index - 1) * STRIDE if index else 0
            self._views[index, count] = Lane(
                index, count, self._shared.ctypes.data, self._rooms[index], leave, desk, self._stay
            )
        return self._views[index, count]

    def _hire(self) -> int:
        """Start the helper threads on the first call, or on the first one after a fork; return their number.

        There are fewer than asked for if the system refuses a thread.
        """
        if self._owner == os.getpid():
            return len(self._desks)
        ring(self._at, 0, False)  # compiles it before it is needed
        self._last, desks, process = (), [], os.getpid()
        self._words[:] = ASLEEP
        try:
            for index in range(1, self.lanes):
                desk = _Desk(self._words[_WORDS * (index - 1) :].data)
                desk.alarm.acquire()
                desks.append(desk)
                about = desk, self._shared, self._later, (self._words, self._leave)
                try:
                    threading.Thread(
                        target=_serve, args=about, daemon=True, name=f"rwkv-lane-{index}"
                    ).start()
                except (
                    RuntimeError,
                    MemoryError,
                ):  # a limit on threads or memory: use those we have
                    desks.pop()
                    break
            weakref.finalize(self, _dismiss, desks, process)
            self._desks, self.lanes = desks, 1 + len(desks)
            self._owner = process
        except BaseException:
            _dismiss(desks, process)
            raise
        return len(desks)


def _aligned(size: int) -> np.ndarray:
    """`size` zero bytes as int64 words, aligned to STRIDE."""
    block = np.zeros(size // 8 + _WORDS, np.int64)
    first = -block.ctypes.data % STRIDE // 8
    return block[first : first + size // 8]
