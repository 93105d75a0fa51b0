"""`Pool`: models by name, loaded when they are first asked for; the least recently used goes where memory
runs short.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rwkv_engine.errors import EngineError, brief
from rwkv_engine.model import Model
from rwkv_engine.serve.problems import Problem
from rwkv_engine.text.chat import Template

#: loads a model by its source, and says how many bytes of memory it will take
Load = Callable[[str | None], Model]
Weigh = Callable[[str | None], int]


@dataclass(slots=True, eq=False)
class Hosted:
    """A model that is in memory. `users` is the number of requests that need it now."""

    name: str
    model: Model
    template: Template
    bytes: int
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class Pool:
    """Models by name. One event loop uses it.

    sources  where each comes from; the first is the default of Ollama's programs.
    ram      bytes of memory for all models together; 0: any.
    forget   told of a model that goes.
    """

    __slots__ = ("_forget", "_hosted", "_load", "_lock", "_weigh", "created", "ram", "sources")

    def __init__(
        self,
        sources: Mapping[str, str | None],
        load: Load,
        weigh: Weigh,
        forget: Callable[[Model], None],
        ram: int = 0,
    ) -> None:
        self.sources, self.ram = dict(sources), ram
        self._load, self._weigh, self._forget = load, weigh, forget
        self._hosted: dict[str, Hosted] = {}
        self._lock = asyncio.Lock()
        self.created = int(time.time())

    def loaded(self) -> list[str]:
        """Names of the models that are in memory."""
        return list(self._hosted)

    async def take(self, name: str) -> Hosted:
        """The model called `name`, loaded if need be; `give` it back. Raises Problem."""
        if name not in self.sources:
            known = ", ".join(self.sources)
            sentence = f"The model '{brief(name, 100)}' does not exist. This server has {known}."
            raise Problem(404, sentence, param="model", code="model_not_found")
        async with self._lock:
            found = self._hosted.get(name) or await self._open(name)
            found.users += 1
            found.used = time.monotonic()
            return found

    def give(self, hosted: Hosted) -> None:
        """A request is done with a model."""
        hosted.users -= 1

    async def _open(self, name: str) -> Hosted:
        try:
            size = await asyncio.to_thread(self._weigh, self.sources[name])
            self._make_room(name, size)
            model = await asyncio.to_thread(self._load, self.sources[name])
            found = self._hosted[name] = Hosted(name, model, model.template, size)
            return found
        except EngineError as error:
            print(f"rwkv: model {name}: {error}", flush=True)
            raise Problem(
                503, f"The model '{name}' cannot be loaded.", code="model_error", after=30
            ) from None

    def _make_room(self, name: str, size: int) -> None:
        """Unload what was not used for the longest time. Raises Problem where all models are at work."""
        while self.ram and sum(h.bytes for h in self._hosted.values()) + size > self.ram and self._hosted:
            idle = [h for h in self._hosted.values() if not h.users]
            if not idle:
                raise Problem(
                    503, f"There is no memory for the model '{name}' now.", code="overloaded", after=10
                )
            oldest = min(idle, key=lambda h: h.used)
            del self._hosted[oldest.name]
            self._forget(oldest.model)
