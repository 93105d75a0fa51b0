"""`Engine`: one thread that runs a `Batch` for each model.

Jobs come in and steps go out; nothing else touches a batch.
"""

import queue
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rwkv_engine.errors import EngineError
from rwkv_engine.model import Model
from rwkv_engine.state import State
from rwkv_engine.system.threads import started
from rwkv_engine.writing.batch import Batch
from rwkv_engine.writing.step import Step
from rwkv_engine.writing.wishes import Wishes


@dataclass(slots=True, eq=False)
class Job:
    """One request: a prompt, and one or more texts that go on from it.

    ids, wishes  as for `Batch.add`.    count  how many texts.    owner  who asks: places are shared out
                 fairly between owners.
    state        where the first text begins; it is moved on, and behind the text in the end. None: a new one.
    deadline     `time.monotonic()` at which it is ended.
    sink         anything of the asker's: steps are delivered with the job, so it says to whom.
    states       by text: the state, which is behind the text when its last step has come.
    """

    ids: list[int]
    wishes: Wishes
    owner: str = ""
    count: int = 1
    state: State | None = None
    deadline: float | None = None
    sink: object = None
    states: list[State] = field(default_factory=list)
    cached: int = 0


#: what happened to a job: (job, number of the text, its step or why it is over); a job that could not begin
#: has the number -1
Event = tuple[Job, int, Step | EngineError]
Deliver = Callable[[list[Event]], None]


class Place:
    """A model, its batch, and who waits for it. Only the engine's thread changes it."""

    __slots__ = ("batch", "model", "running", "waiting")

    def __init__(self, model: Model, max_sequences: int) -> None:
        self.model = model
        self.batch = Batch(model, max_sequences)
        self.waiting: list[Job] = []
        # by ticket: whose text it is, and which; -1 for a prompt that is read once for many texts
        self.running: dict[int, tuple[Job, int]] = {}


class Engine:
    """The thread. `deliver` is called in it with what each round brought.

    max_sequences  most texts at once on one model.
    """

    __slots__ = ("_commands", "_deliver", "_places", "_thread", "max_sequences", "steps", "tokens")

    def __init__(self, deliver: Deliver, max_sequences: int = 32) -> None:
        self._deliver, self.max_sequences = deliver, max_sequences
        self._commands: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._places: dict[Model, Place] = {}
        self.steps = self.tokens = 0
        thread = started(self._run, name="rwkv-engine")
        if thread is None:
            raise EngineError(
                "the system refuses a thread; allow more (ulimit -u, or the container's pids limit)"
            )
        self._thread = thread

    def begin(self, model: Model, job: Job) -> None:
        """Begin a job as soon as there is a place."""
        self._commands.put(lambda: self._place(model).waiting.append(job))

    def cancel(self, job: Job) -> None:
        """End a job; its places are free before the next step. Nothing more is delivered of it."""
        self._commands.put(lambda: self._drop(job))

    def end(self, jobs: Sequence[Job]) -> None:
        """End jobs now, as if their time was over: each text gets a last step."""
        self._commands.put(lambda: self._time_out(set(jobs)))

    def forget(self, model: Model) -> None:
        """Let go of a model that nobody uses any more."""
        self._commands.put(lambda: self._places.pop(model, None))

    def running(self) -> int:
        """Texts under way, about: the thread goes on meanwhile."""
        return sum(len(place.batch) for place in list(self._places.values()))

    def close(self) -> None:
        """End the thread after its present step."""
        self._commands.put(None)
        self._thread.join(30)

    def _place(self, model: Model) -> Place:
        if model not in self._places:
            self._places[model] = Place(model, self.max_sequences)
        return self._places[model]

    def _run(self) -> None:
        while True:
            busy = any(place.running or place.waiting for place in self._places.values())
            try:
                while True:
                    command = self._commands.get(block=not busy)
                    if command is None:
                        return
                    command()
                    busy = True
            except queue.Empty:
                pass
            for place in list(self._places.values()):
                events: list[Event] = []
                try:
                    self._round(place, events)
                except Exception as error:  # a batch that fails must not take the others with it
                    if not isinstance(error, EngineError):
                        traceback.print_exc()
                    events += self._give_up(place, error)
                if events:
                    self._deliver(events)

    def _round(self, place: Place, events: list[Event]) -> None:
        """Let in who may, and one step for all."""
        now = time.monotonic()
        late = {job for job, _ in place.running.values() if job.deadline is not None and now > job.deadline}
        late.update(job for job in place.waiting if job.deadline is not None and now > job.deadline)
        if late:
            self._time_out(late)
        while place.waiting and len(place.batch) < place.batch.max_sequences:
            here = Counter(job.owner for job, _ in place.running.values())
            job = min(place.waiting, key=lambda job: here[job.owner])
            reserved = sum(other.count - 1 for other, number in place.running.values() if number < 0)
            if len(place.batch) + reserved + job.count > self.max_sequences:
                break  # many texts of one prompt begin together
            place.waiting.remove(job)
            try:
                self._begin(place, job)
            except EngineError as error:
                events.append((job, -1, error))
        if not len(place.batch):
            return
        for ticket, step in place.batch.step():
            job, number = place.running[ticket]
            if number < 0:
                place.running.pop(ticket)
                self._branch(place, job, ticket, step, events)
                continue
            if step.stop is not None:
                place.running.pop(ticket)
            job.cached = max(job.cached, step.usage.cached_tokens)
            events.append((job, number, step))
            self.tokens += 1
        self.steps += 1

    def _begin(self, place: Place, job: Job) -> None:
        w = job.wishes
        if job.count > 1 and len(job.ids) > 1 and w.constraint is None:
            # the prompt is read once, all but its last token; its only step is thrown away
            state = job.state or place.model.new_state()
            job.states = [state]
            ticket = place.batch.add(job.ids[:-1], max_tokens=2, state=state, prefix_cache=w.prefix_cache)
            place.running[ticket] = job, -1
            return
        first = job.state or place.model.new_state()
        self._add(place, job, [first] + [first.fork() for _ in range(job.count - 1)], job.ids)

    def _branch(self, place: Place, job: Job, ticket: int, step: Step, events: list[Event]) -> None:
        """The prompt of many texts was read: they begin."""
        if step.stop is None:
            place.batch.cancel(ticket)
        elif step.error is not None:
            events.append((job, -1, step.error))
            return
        job.cached = step.usage.cached_tokens
        first = job.states[0]
        try:
            self._add(place, job, [first] + [first.fork() for _ in range(job.count - 1)], job.ids[-1:])
        except EngineError as error:
            self._drop(job)
            events.append((job, -1, error))

    def _add(self, place: Place, job: Job, states: list[State], ids: list[int]) -> None:
        w, job.states = job.wishes, states
        for number, state in enumerate(states):
            sampling = w.sampling
            if number and sampling.seed is not None:
                sampling = replace(sampling, seed=sampling.seed + number)
            ticket = place.batch.add(
                ids,
                max_tokens=w.max_tokens,
                sampling=sampling,
                state=state,
                stop=w.stop,
                constraint=w.constraint,
                prefix_cache=w.prefix_cache if len(ids) == len(job.ids) else None,
                alternatives=w.alternatives,
                ends=w.ends,
            )
            place.running[ticket] = job, number

    def _drop(self, job: Job) -> list[tuple[int, Step | None]]:
        """Take a job out, wherever it is; the last steps of its texts, None for those that had not begun."""
        last: list[tuple[int, Step | None]] = []
        for place in self._places.values():
            if job in place.waiting:
                place.waiting.remove(job)
                last = [(number, None) for number in range(job.count)]
            for ticket in [t for t, (other, _) in place.running.items() if other is job]:
                _, number = place.running.pop(ticket)
                last.append((number, place.batch.cancel(ticket)))
        return last

    def _time_out(self, jobs: set[Job]) -> None:
        events: list[Event] = []
        for job in jobs:
            for number, step in self._drop(job):
                events.append((job, number, step if step is not None else EngineError("no place in time")))
        if events:
            self._deliver(events)

    def _give_up(self, place: Place, error: Exception) -> list[Event]:
        """End all texts of a batch that failed; the next ones get a new batch."""
        told = error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")
        events: list[Event] = [(job, number, told) for job, number in place.running.values()]
        place.running.clear()
        place.batch = Batch(place.model, self.max_sequences)
        return events
