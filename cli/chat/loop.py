"""The loop of a conversation: read a line, answer it or obey it, keep what came of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rwkv_engine_cli.chat.commands import obey
from rwkv_engine_cli.chat.outcome import Outcome
from rwkv_engine_cli.chat.running import Chat
from rwkv_engine_cli.output import typed
from rwkv_engine_cli.usage import show_usage

from rwkv_engine.chat.answer import Part
from rwkv_engine.errors import CheckpointError, EngineError

#: what a person types who wants to leave, besides the command
LEAVING = ("exit", "quit")


class Screen(Protocol):
    """Where a conversation is seen.

    commands  whether lines that begin with a slash are commands.
    """

    commands: bool

    def read(self, chat: Chat, before: str) -> str | None:
        """What the person says, `before` being there to be changed; None: he leaves."""

    def show(self, text: str) -> None:
        """Show lines that no model wrote."""

    def copy(self, text: str) -> None:
        """Put a text into the clipboard. Raises OptionError where that cannot be done."""

    def wait(self, chat: Chat) -> None:
        """Wait until the model's programs are ready; what is left to do is shown."""

    def stream(self, chat: Chat, parts: Iterator[Part]) -> None:
        """Show an answer as it comes."""


def run(chat: Chat, screen: Screen, verbose: bool = False) -> None:
    """Answer until the person leaves."""
    editing: str | None = None
    while (line := screen.read(chat, editing or "")) is not None:
        change, editing, line = editing is not None, None, typed(line)
        if not line.strip():
            continue
        session, settings = chat.session, chat.settings()
        try:
            outcome = _outcome(chat, screen, line, change)
            if outcome.copied:
                screen.copy(outcome.copied)
            if outcome.text:
                screen.show(outcome.text)
            if outcome.parts is not None:
                _stream(chat, screen, outcome.parts, verbose)
            elif chat.session and chat.session is session and session.kept and chat.settings() != settings:
                screen.wait(chat)
                chat.keep()
            editing = outcome.edit
        except KeyboardInterrupt:  # in the middle of a command
            if not screen.commands:
                raise
            screen.show("(stopped)")
            continue
        except CheckpointError:
            raise
        except EngineError as error:
            if not screen.commands:
                raise
            screen.show(" ".join(str(error).split()))
            continue
        if outcome.leave:
            return


def _stream(chat: Chat, screen: Screen, parts: Iterator[Part], verbose: bool) -> None:
    """Show an answer, keep it, and say what there is to say about it."""
    try:
        screen.wait(chat)
        with until_interrupt(parts) as some:
            screen.stream(chat, some)
            chat.keep()
    except KeyboardInterrupt:  # before the first token: the conversation is as it was
        if not screen.commands:
            raise
        screen.show("(stopped)")
        return
    note = limit_note(chat)
    if note and screen.commands:
        screen.show(note)
    elif note and chat.constraint is not None:  # whoever reads the answers counts on their form
        chat.warn(note)
    if verbose and chat.usage is not None:
        show_usage(chat.usage, chat.conversation.turns[-1].stop if chat.conversation.turns else None)


def limit_note(chat: Chat) -> str:
    """What is said of a thought or an answer that was cut off by its limit; nothing for others."""
    turns = chat.conversation.turns
    if chat.usage is None or not turns:
        return ""
    notes = []
    if chat.usage.thoughts > chat.limits["max_thoughts"]:
        notes.append(_more("thought", "max_thoughts", chat))
    if turns[-1].stop in ("length", "cut"):
        unfit = chat.constraint if turns[-1].stop == "cut" else None
        form = f" and does not fit the {unfit.kind} yet" if unfit else ""
        notes.append(_more("answer", "max_tokens", chat, form))
    return "; ".join(notes)


def _more(what: str, name: str, chat: Chat, form: str = "") -> str:
    """That something was cut by its limit, and how to have more of it."""
    limit = chat.limits[name]
    option = f"--{name.replace('_', '-')}"
    return f"the {what} was cut at {limit:,} tokens{form}; more: /set {name} {2 * limit}, or {option} {2 * limit}"


def _outcome(chat: Chat, screen: Screen, line: str, change: bool) -> Outcome:
    if screen.commands and not change and line.strip().lower() in LEAVING:
        return Outcome(leave=True)
    if screen.commands and line.startswith("//"):
        line = line[1:]
    elif screen.commands and line.startswith("/"):
        return obey(chat, line)
    return Outcome(parts=chat.edit(line) if change else chat.say(line))


@contextmanager
def until_interrupt(parts: Iterator[Part]) -> Iterator[Iterator[Part]]:
    """The same parts up to the first ctrl-C, which ends the answer between two tokens; a second one changes
    nothing.

    Before the first part, while a program is compiled for instance, ctrl-C is a KeyboardInterrupt.
    """
    asked = begun = False

    def stop(number: int, frame: object) -> None:
        nonlocal asked
        if not begun:
            raise KeyboardInterrupt
        asked = True

    def some() -> Iterator[Part]:
        nonlocal begun
        for part in parts:
            begun = True
            yield part
            if asked:
                break
        parts.close()  # type: ignore[attr-defined]  # what was said so far counts

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield some()
    finally:
        signal.signal(signal.SIGINT, before)
