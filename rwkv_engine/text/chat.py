"""Chat templates: how a talk is written down for a model that continues text. Each is a row of TEMPLATES.

World's form, its modes of thinking and its tools: the cards of BlinkDL's RWKV-7 G1 models and the demo that
goes with them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rwkv_engine.errors import OptionError

Role = Literal["system", "user", "assistant", "tool"]
#: how much is thought before an answer; "off" leaves it to the model, "fast" skips it, "long" asks for a lot
#: of it
Think = Literal["off", "fast", "on", "long"]
_BLANK_LINES = re.compile(r"[^\S\n]*\n\s*\n")
#: how an answer that calls a tool begins
CALL = " ```json"
_CALL_ONLY = "Return only a JSON function call."


@dataclass(frozen=True, slots=True)
class Message:
    """What one side said; `tool` is the output of a tool that the assistant called."""

    role: Role
    text: str


class Template(Protocol):
    """What a conversation needs of a form, turn by turn: nothing that was fed is ever written again.

    name   for people.    stops  texts at which an answer is over.    thinks  the modes of thinking there are.
    """

    @property
    def name(self) -> str: ...
    @property
    def stops(self) -> tuple[str, ...]: ...
    @property
    def thinks(self) -> tuple[str, ...]: ...

    def asks(self, text: str, think: Think, system: str | None, first: bool) -> str:
        """All that stands between the answer before (nothing for the `first` turn) and the answer to `text`."""

    def keeps(self, text: str, answer: str, system: str | None, first: bool) -> str:
        """The same and the answer, as history keeps it: without thinking and without asking for it."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """How a talk is written down.

    names    what stands before the text of each role, with a colon.
    between  what separates two messages.
    stops    texts at which an answer is over, besides the token that ends a document.
    think    what follows the assistant's name in each mode.
    asking   what follows the user's text in a mode.
    """

    name: str
    names: dict[Role, str]
    between: str = "\n\n"
    stops: tuple[str, ...] = ()
    think: dict[Think, str] = field(default_factory=lambda: {"off": ""})
    asking: dict[Think, str] = field(default_factory=dict)

    @property
    def thinks(self) -> tuple[Think, ...]:
        """The modes of thinking there are."""
        return tuple(self.think)

    def opening(self, system: str | None, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The text in front of the first turn: what the model is told, the tools it may call (JSON
        descriptions), or nothing.
        """
        told = [system.strip()] if system and system.strip() else []
        if tools:
            told += ["Tools:", json.dumps(list(tools), ensure_ascii=False), _CALL_ONLY]
        return f"{self._said(Message('system', chr(10).join(told)))}{self.between}" if told else ""

    def turn(self, text: str, think: Think = "off", call: bool = False) -> str:
        """What the user says, up to where the answer begins (without a space: a World token begins with it).

        think  the mode.    call  whether the answer has to be a call of a tool, which is JSON.
        """
        if think not in self.think:
            raise OptionError.of(
                "think", think, f"what the template {self.name} has: {', '.join(self.think)}"
            )
        asked = f"{self._said(Message('user', text))}{self.asking.get(think, '')}"
        return f"{asked}{self.between}{self.names['assistant']}:{CALL if call else self.think[think]}"

    def asks(self, text: str, think: Think, system: str | None, first: bool) -> str:
        """See `Template`."""
        return ("" if first else self.between) + self.opening(system) + self.turn(text, think)

    def keeps(self, text: str, answer: str, system: str | None, first: bool) -> str:
        """See `Template`."""
        return self.asks(text, "off", system, first) + (f" {answer.strip()}" if answer.strip() else "")

    def render(
        self,
        messages: Sequence[Message],
        think: Think = "off",
        tools: Sequence[Mapping[str, Any]] = (),
        call: bool = False,
    ) -> str:
        """A whole talk that ends with the user's message or a tool's output, up to where the answer begins.

        tools  put in front, with the system text if the talk begins with one.    think, call  as for `turn`.
        Raises OptionError for any other end.
        """
        if not messages or messages[-1].role not in ("user", "tool"):
            raise OptionError("messages: the last one must be the user's or a tool's")
        system = messages[0].text if tools and messages[0].role == "system" else None
        earlier = messages[1:-1] if system is not None else messages[:-1]
        before = self.opening(system, tools) if tools else ""
        before += "".join(self._said(message) + self.between for message in earlier)
        return before + self.turn(_spoken(messages[-1]), think, call)

    def _said(self, message: Message) -> str:
        """One message; runs of blank lines inside it become one line end, because a blank line ends a
        message.
        """
        role: Role = "user" if message.role == "tool" else message.role
        if role not in self.names:
            raise OptionError.of("role", message.role, f"one of {', '.join(self.names)}")
        text = _BLANK_LINES.sub("\n", _spoken(message).strip())
        return f"{self.names[role]}: {text}"


def _spoken(message: Message) -> str:
    """A message's text; the output of a tool is told by the user."""
    return f"Function output: {message.text}" if message.role == "tool" else message.text


TEMPLATES = {
    row.name: row
    for row in (
        ChatTemplate(
            "world",
            {"system": "System", "user": "User", "assistant": "Assistant"},
            stops=("\n\nUser:", "\n\nSystem:"),
            think={"off": "", "fast": " <think>\n</think", "on": " <think", "long": " <think"},
            asking={"long": " (think a lot)"},
        ),
        ChatTemplate(
            "raven",
            {"system": "System", "user": "Bob", "assistant": "Alice"},
            stops=("\n\nBob:", "\n\nAlice:"),
        ),
        ChatTemplate(
            "qa", {"system": "System", "user": "Question", "assistant": "Answer"}, stops=("\n\nQuestion:",)
        ),
        ChatTemplate("pile", {"system": "System", "user": "Q", "assistant": "A"}, stops=("\n\nQ:",)),
    )
}
#: vocabulary size of the Pile models (v4), which know Raven's form
_PILE = 50277


def template_named(name: str) -> ChatTemplate:
    """The template called `name`; OptionError, with the names there are, for any other."""
    if name not in TEMPLATES:
        raise OptionError.of("template", name, f"one of {', '.join(TEMPLATES)}, or a Jinja file")
    return TEMPLATES[name]


def template_for(vocab: int) -> ChatTemplate:
    """The template of a model with this vocabulary size: Raven's for the Pile models, else World's."""
    return TEMPLATES["raven" if vocab == _PILE else "world"]
