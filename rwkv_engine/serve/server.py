"""`Server`: the engine, the models and the limits behind all endpoints, and the requests that are under way."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from rwkv_engine.model import Model
from rwkv_engine.serve.engine import Engine, Event, Job
from rwkv_engine.serve.keeping import Elsewhere, Keeper
from rwkv_engine.serve.metrics import Metrics
from rwkv_engine.serve.planning import Limits, Plan
from rwkv_engine.serve.pool import Hosted, Load, Pool, Weigh
from rwkv_engine.serve.problems import Problem
from rwkv_engine.serve.security import Door
from rwkv_engine.state import State
from rwkv_engine.system.folders import cache_folder
from rwkv_engine.writing.prefix_cache import PrefixCache
from rwkv_engine.writing.sampling import Sampling

#: seconds that a client is told to wait when there is no place
AFTER = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server is set up.

    sources  models by name, see `Pool`.     ram   bytes for models; 0: any.       sampling  where a request
             says nothing.
    keys, origins, local  see `Door`.        folder  where states are kept; None: in memory only.
    memory, disk  bytes of states that are kept there at most.    prefixes  whether beginnings of prompts are
                  cached.
    grace    seconds that texts may go on after the order to stop.
    """

    sources: dict[str, str | None]
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    ram: int = 0
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    local: bool = True
    folder: Path | None = None
    memory: int = 1 << 28
    disk: int = 4 << 30
    prefixes: bool = True
    grace: float = 5.0


@dataclass(slots=True, eq=False)
class Asked:
    """A request under way: its events come through a queue."""

    job: Job
    hosted: Hosted
    events: "asyncio.Queue[list[Event]]" = field(default_factory=asyncio.Queue)
    begun: float = field(default_factory=time.perf_counter)
    first: float = 0.0


class Server:
    """What the endpoints share. One event loop uses it."""

    __slots__ = (
        "_loop",
        "_under_way",
        "closing",
        "door",
        "engine",
        "keeper",
        "limits",
        "metrics",
        "pool",
        "settings",
    )

    def __init__(
        self, settings: Settings, load: Load, weigh: Weigh, elsewhere: Elsewhere | None = None
    ) -> None:
        self.settings, self.limits = settings, settings.limits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: set[Asked] = set()
        self.closing = False
        self.door = Door(settings.keys, settings.origins, settings.local)
        self.engine = Engine(self._deliver, settings.limits.sequences)
        self.pool = Pool(settings.sources, load, weigh, self._forget, settings.ram)
        self.keeper = Keeper(settings.folder, settings.memory, settings.disk, elsewhere)
        self.metrics = Metrics(
            self.engine.running, self.waiting, lambda: len(self.pool.loaded()), lambda: self.keeper.nbytes
        )

    def open(self) -> None:
        """Belong to the event loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def waiting(self) -> int:
        """Requests under way for which no text has begun."""
        return sum(not asked.first for asked in self._under_way)

    def ask(self, hosted: Hosted, plan: Plan, owner: str, state: State | None) -> Asked:
        """Begin what was planned. Raises Problem where the server is full or is being stopped."""
        if self.closing:
            raise Problem(503, "The server is being stopped.", code="shutting_down", after=30)
        if len(self._under_way) >= self.limits.queue + self.limits.sequences:
            raise Problem(429, "The server has too many requests; try again.", code="overloaded", after=AFTER)
        seconds = self.limits.seconds
        job = Job(plan.ids, plan.wishes, owner, plan.count, state)
        job.deadline = time.monotonic() + seconds if seconds else None
        asked = Asked(job, hosted)
        job.sink = asked.events
        hosted.users += 1
        self._under_way.add(asked)
        self.engine.begin(hosted.model, job)
        return asked

    def done(self, asked: Asked) -> None:
        """Nobody waits for this any more: what still runs of it is ended."""
        if asked in self._under_way:
            self._under_way.remove(asked)
            self.engine.cancel(asked.job)
            self.pool.give(asked.hosted)

    def prefix_cache(self, owner: str) -> PrefixCache | None:
        """The states behind beginnings of prompts: the command's own, unless several people use the server."""
        if not self.settings.prefixes:
            return None
        try:
            return PrefixCache(cache_folder() / "prefixes" / owner if self.door.shared else None)
        except OSError:
            return None

    async def stop(self) -> None:
        """Let texts come to their end for a while, then end them: each stream gets its last event."""
        self.closing = True
        until = time.monotonic() + self.settings.grace
        while self._under_way and time.monotonic() < until:
            await asyncio.sleep(0.05)
        self.engine.end([asked.job for asked in self._under_way])

    def close(self) -> None:
        """End the engine's thread."""
        self.engine.close()

    def _forget(self, model: Model) -> None:
        self.engine.forget(model)

    def _deliver(self, events: list[Event]) -> None:
        """In the engine's thread: hand over what a round brought."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_dispatch, events)


def _dispatch(events: list[Event]) -> None:
    of: dict[Job, list[Event]] = {}
    for event in events:
        of.setdefault(event[0], []).append(event)
    for job, some in of.items():
        assert isinstance(job.sink, asyncio.Queue)
        job.sink.put_nowait(some)
