"""What comes of a command, and the few words that commands have in common."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rwkv_engine.chat.answer import Part
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.errors import OptionError

#: a fenced block of Markdown: its text
_FENCED = re.compile(r"^(`{3,}|~{3,})[^\n]*\n(.*?)(?:^\1|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a line: text to show, an answer to stream, a question to edit, or the end of the chat.

    copied  goes to the clipboard of the person's terminal.
    """

    text: str = ""
    parts: Iterator[Part] | None = None
    edit: str | None = None
    leave: bool = False
    copied: str = ""


def recap(conversation: Conversation) -> str:
    """How long a conversation is, and what was said last in it."""
    if not conversation.turns:
        return how_long(conversation)
    last = conversation.turns[-1]
    return f"{how_long(conversation)}; last:\nyou: {short(last.user)}\nmodel: {short(last.answer, 300)}"


def how_long(conversation: Conversation) -> str:
    """How long a conversation is, for people."""
    return extent(len(conversation.turns), conversation.tokens)


def extent(turns: int, tokens: int) -> str:
    """How long a conversation is, for people."""
    return f"{tokens:,} tokens in {turns} turn{'s' * (turns != 1)}"


def named(argument: str, command: str) -> str:
    """The name that a command was given. Raises OptionError for none."""
    if not argument:
        raise OptionError(f"{command}: want the name of a session")
    return argument


def number(text: str, what: str) -> int:
    """A whole number of 1 or more. Raises OptionError."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise OptionError(f"{what}: got {text.strip()!r}, want a whole number of 1 or more")
    return int(text)


def short(text: str, most: int = 50) -> str:
    """A text in one line, cut to so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."


def first_code(text: str) -> str:
    """The text of the first fenced code block; the whole text where there is none."""
    found = _FENCED.search(text)
    return found[2].removesuffix("\n") if found else text
