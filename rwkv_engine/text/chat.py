"""Chat templates: how a talk is written down for a model that continues text. Each is a row of TEMPLATES."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rwkv_engine.errors import OptionError

Role = Literal["system", "user", "assistant"]
#: how the answer begins in each mode of thinking; "off" leaves it to the model
Think = Literal["off", "on", "fast"]
_BLANK_LINES = re.compile(r"[^\S\n]*\n\s*\n")


@dataclass(frozen=True, slots=True)
class Message:
    """What one side said."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """How a talk is written down.

    names    what stands before the text of each role, with a colon.
    between  what separates two messages.
    stops    texts at which an answer is over, besides the token that ends a document.
    think    what follows the assistant's name in each mode.
    """

    name: str
    names: dict[Role, str]
    between: str = "\n\n"
    stops: tuple[str, ...] = ()
    think: dict[Think, str] = field(default_factory=lambda: {"off": ""})

    def opening(self, system: str | None) -> str:
        """The text in front of the first turn: what the model is told, or nothing."""
        return f"{self._said(Message('system', system))}{self.between}" if system and system.strip() else ""

    def turn(self, text: str, think: Think = "off") -> str:
        """What the user says, up to where the answer begins (without a space: a World token begins with it)."""
        if think not in self.think:
            raise OptionError(f"think: got {think!r}, the template {self.name} has {', '.join(self.think)}")
        return f"{self._said(Message('user', text))}{self.between}{self.names['assistant']}:{self.think[think]}"

    def render(self, messages: Sequence[Message], think: Think = "off") -> str:
        """A whole talk that ends with the user's message, up to where the answer begins. Raises OptionError for any other end."""
        if not messages or messages[-1].role != "user":
            raise OptionError("messages: the last one must be the user's")
        earlier = "".join(self._said(message) + self.between for message in messages[:-1])
        return earlier + self.turn(messages[-1].text, think)

    def _said(self, message: Message) -> str:
        """One message; runs of blank lines inside it become one line end, because a blank line ends a message."""
        if message.role not in self.names:
            raise OptionError(f"messages: got the role {message.role!r}, want one of {', '.join(self.names)}")
        text = _BLANK_LINES.sub("\n", message.text.strip())
        return f"{self.names[message.role]}: {text}"


TEMPLATES = {
    row.name: row
    for row in (
        ChatTemplate(
            "world",
            {"system": "System", "user": "User", "assistant": "Assistant"},
            stops=("\n\nUser:", "\n\nSystem:"),
            think={"off": "", "on": " <think", "fast": " <think>\n</think"},
        ),
        ChatTemplate("raven", {"system": "System", "user": "Bob", "assistant": "Alice"}, stops=("\n\nBob:", "\n\nAlice:")),
        ChatTemplate("qa", {"system": "System", "user": "Question", "assistant": "Answer"}, stops=("\n\nQuestion:",)),
    )
}
#: vocabulary size of the Pile models (v4), which know Raven's form
_PILE = 50277


def template_named(name: str) -> ChatTemplate:
    """The template called `name`; OptionError, with the names there are, for any other."""
    if name not in TEMPLATES:
        raise OptionError(f"template: got {name!r}, want one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def template_for(vocab: int) -> ChatTemplate:
    """The template of a model with this vocabulary size: Raven's for the Pile models, else World's."""
    return TEMPLATES["raven" if vocab == _PILE else "world"]
