"""The running conversation: a conversation, its place in the store, and how answers are chosen."""

from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rwkv_engine_cli.preparing import Preparation

from rwkv_engine.chat import Session, Store, carried
from rwkv_engine.chat.answer import Part
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.errors import OptionError, SessionError
from rwkv_engine.model import Model
from rwkv_engine.numbers.sizes import size
from rwkv_engine.text.chat import Template
from rwkv_engine.writing.constraint import Constraint
from rwkv_engine.writing.prefix_cache import PrefixCache
from rwkv_engine.writing.sampling import Sampling
from rwkv_engine.writing.step import Usage

#: settings of a conversation that are about its model's file, and not about any other
BELONGING = ("tokenizer", "template", "lora", "lora_alpha")


@dataclass(slots=True)
class Chat:
    """What a command may look at and change.

    session   where the conversation is kept; without a store it only holds it.
    store     None: nothing is kept.
    limits    the most tokens of an answer and of a thought: "max_tokens", "max_thoughts".
    source    how the model was named, for the next time.    warn  tells the person something in one line.
    usage     of the last answer; None before the first.
    prefix_cache  where states behind long prompts are kept; None: nowhere.
    constraint    what every answer has to look like; None: free.
    preparation   of the model's programs; to be waited for before an answer.
    load          opens another model by its name, with its template; None: there can be no other.
    state_bytes   of a state of this model, whatever it has read.
    """

    model: Model
    template: Template
    session: Session | None
    conversation: Conversation
    store: Store | None
    sampling: Sampling
    limits: dict[str, int]
    source: dict[str, Any]
    warn: Callable[[str], None]
    preparation: Preparation
    usage: Usage | None = None
    prefix_cache: PrefixCache | None = None
    constraint: Constraint | None = None
    load: Callable[[str], tuple[Model, Template]] | None = None
    state_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.state_bytes = self.model.new_state().nbytes

    @property
    def name(self) -> str:
        """The session's name, or what is to be said for one that has none."""
        if self.session is None:
            return "not kept"
        return self.session.name or "new"

    def settings(self) -> dict[str, Any]:
        """What is kept with the session, as JSON values."""
        told = self.conversation
        return {
            **self.source,
            "think": told.think,
            "system": told.system,
            **self.limits,
            "sampling": asdict(self.sampling),
        }

    def say(self, text: str) -> Generator[Part, None, None]:
        """The answer to `text`."""
        return self._watched(self.conversation.say(text, self.sampling, **self._wishes()))

    def retry(self) -> Generator[Part, None, None]:
        """Another answer to the last question."""
        return self._watched(self.conversation.retry(self.sampling, **self._wishes()))

    def edit(self, text: str) -> Generator[Part, None, None]:
        """The answer to `text` in place of the last question."""
        return self._watched(self.conversation.edit(text, self.sampling, **self._wishes()))

    def _wishes(self) -> dict[str, Any]:
        """How every answer is to be written."""
        return {**self.limits, "constraint": self._form(), "prefix_cache": self.prefix_cache}

    def _form(self) -> Constraint | None:
        """The constraint of an answer; a thought in front of it is free."""
        if self.constraint is None or self.conversation.think == "off":
            return self.constraint
        return replace(self.constraint, after="</think>")

    def keep(self) -> None:
        """Put the conversation as it is now into the store.

        A failure is told, and ends keeping; the conversation goes on.
        """
        if self.session is None:
            return
        try:
            before = self.session.name
            if not self.session.keep(self.settings()):
                self.warn(
                    f"session {before!r} was changed by another process; this conversation is now {self.session.name!r}"
                )
        except SessionError as error:
            self.session = self.store = None
            self.warn(f"{error}; this conversation is no longer kept")

    def enter(self, session: Session) -> None:
        """Go on with another session."""
        session.conversation.draft = self.conversation.draft
        self.session, self.conversation = session, session.conversation
        self.usage = None

    def change_model(self, name: str) -> list[str]:
        """Go on with another model; it reads the conversation again before its next answer.

        The options that belong to the model before, which are returned, hold no longer, also when the
        conversation is resumed. Raises OptionError, CheckpointError: everything is then as it was.
        """
        if self.load is None:
            raise OptionError("/model: this conversation keeps its model")
        model, template = self.load(name)
        drafted = not isinstance(self.conversation.draft, str | None)
        fresh = carried(self.conversation, model, template)
        if self.session is not None:
            self.session.exchange(fresh)
        self.model, self.template, self.conversation, self.usage = model, template, fresh, None
        self.source["model"] = str(Path(name).absolute()) if Path(name).exists() else name
        self.preparation = Preparation(model)
        self.state_bytes = model.new_state().nbytes
        gone = [option for option in BELONGING if self.source.get(option) is not None]
        self.source |= dict.fromkeys(BELONGING)
        return [f"--{option.replace('_', '-')}" for option in gone] + ["--draft"] * drafted

    def need_store(self) -> Store:
        """The store. Raises SessionError if nothing is kept."""
        if self.store is None:
            raise SessionError("this conversation is not kept (--no-save), so there are no sessions")
        return self.store

    def status(self) -> str:
        """One line: name, tokens, size of the state, speed, mode of thinking."""
        told = self.conversation
        parts = [self.name, f"{told.tokens:,} tokens", f"state {size(self.state_bytes)}"]
        if self.usage is not None and self.usage.rate:
            parts.append(f"{self.usage.rate:,.0f} tokens/s")
        if told.think != "off":
            parts.append(f"think {told.think}")
        return " · ".join(parts)

    def _watched(self, parts: Generator[Part, None, None]) -> Generator[Part, None, None]:
        """The same parts; the last one's usage stays."""
        self.usage = None
        try:
            for part in parts:
                if part.step is not None:
                    self.usage = part.step.usage
                yield part
        finally:
            parts.close()  # so that closing this one ends the answer
