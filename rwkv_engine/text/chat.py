"""Chat templates: the text form in which a model sees a conversation. TEMPLATES has one row for each.

World's form, its thinking modes and its tools: the model cards and the demo of BlinkDL's RWKV-7 G1 models.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rwkv_engine.errors import OptionError

Role = Literal["system", "user", "assistant", "tool"]
#: how much the model thinks before it answers: "off" leaves it to the model, "fast" skips it, "long" asks for
#: more
Think = Literal["off", "fast", "on", "long"]
_BLANK_LINES = re.compile(r"[^\S\n]*\n\s*\n")
#: the beginning of an answer that calls a tool
CALL = " ```json"
_CALL_ONLY = "Return only a JSON function call."


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; the role `tool` is the output of a tool that the assistant called."""

    role: Role
    text: str


class Template(Protocol):
    """What a conversation needs from a template, turn by turn; text that was fed is never changed later.

    name    for people.
    stops   strings that end an answer.
    thinks  the thinking modes that the template has.
    """

    @property
    def name(self) -> str: ...
    @property
    def stops(self) -> tuple[str, ...]: ...
    @property
    def thinks(self) -> tuple[str, ...]: ...

    def asks(self, text: str, think: Think, system: str | None, first: bool) -> str:
        """The text from the end of the previous answer (if any) to the beginning of the answer to `text`."""

    def keeps(self, text: str, answer: str, system: str | None, first: bool) -> str:
        """The same text followed by the answer, as the history keeps it: without any thinking."""

    def render(
        self,
        messages: Sequence[Message],
        think: Think = "off",
        tools: Sequence[Mapping[str, Any]] = (),
        call: bool = False,
    ) -> str:
        """A whole conversation, up to where the next answer begins."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template that is plain text with role names.

    names    the name in front of each role's text; a colon follows it.
    between  the separator between two messages.
    stops    strings that end an answer, besides the end-of-document token.
    think    the text after the assistant's name in each thinking mode.
    asking   the text after the user's message in a thinking mode.
    """

    name: str
    names: dict[Role, str]
    between: str = "\n\n"
    stops: tuple[str, ...] = ()
    think: dict[Think, str] = field(default_factory=lambda: {"off": ""})
    asking: dict[Think, str] = field(default_factory=dict)

    @property
    def thinks(self) -> tuple[Think, ...]:
        """The thinking modes of this template."""
        return tuple(self.think)

    def opening(self, system: str | None, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The text before the first turn: the system prompt and the JSON descriptions of tools, or nothing."""
        told = [system.strip()] if system and system.strip() else []
        if tools:
            told.append(tools_told(tools))
        return f"{self._said(Message('system', chr(10).join(told)))}{self.between}" if told else ""

    def turn(self, text: str, think: Think = "off", call: bool = False) -> str:
        """The user's message, up to where the answer begins (without a space: World tokens begin with one).

        think  the thinking mode.
        call   True if the answer has to be a tool call, which is JSON.
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
        """A whole conversation that ends with a message of the user or a tool, up to where the answer begins.

        tools  put at the beginning, together with the system prompt if there is one.
        think, call  as in `turn`.
        Raises OptionError if the last message has another role.
        """
        if not messages or messages[-1].role not in ("user", "tool"):
            raise OptionError("messages: the last one must be the user's or a tool's")
        system = messages[0].text if tools and messages[0].role == "system" else None
        earlier = messages[1:-1] if system is not None else messages[:-1]
        before = self.opening(system, tools) if tools else ""
        before += "".join(self._said(message) + self.between for message in earlier)
        return before + self.turn(_spoken(messages[-1]), think, call)

    def _said(self, message: Message) -> str:
        """One message. Blank lines inside it become line ends, because a blank line ends a message."""
        role: Role = "user" if message.role == "tool" else message.role
        if role not in self.names:
            raise OptionError.of("role", message.role, f"one of {', '.join(self.names)}")
        text = _BLANK_LINES.sub("\n", _spoken(message).strip())
        return f"{self.names[role]}: {text}"


def tools_told(tools: Sequence[Mapping[str, Any]]) -> str:
    """The JSON descriptions of tools as a system prompt tells of them."""
    return "\n".join(("Tools:", json.dumps(list(tools), ensure_ascii=False), _CALL_ONLY))


def _spoken(message: Message) -> str:
    """A message's text; a tool's output is written as a user message."""
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
#: vocabulary size of the Pile models (v4), which use Raven's template
_PILE = 50277


def template_named(name: str) -> ChatTemplate:
    """The template called `name`. Raises OptionError, which lists the known names."""
    if name not in TEMPLATES:
        raise OptionError.of("template", name, f"one of {', '.join(TEMPLATES)}, or a Jinja file")
    return TEMPLATES[name]


def template_for(vocab: int) -> ChatTemplate:
    """The template of a model with this vocabulary size: Raven's for the Pile models, else World's."""
    return TEMPLATES["raven" if vocab == _PILE else "world"]
