"""The loop of a conversation: read a line, answer it or obey it, keep what came of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rwkv_engine_cli.talk.commands import obey
from rwkv_engine_cli.talk.outcome import Outcome
from rwkv_engine_cli.talk.running import Talk
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

    def read(self, talk: Talk, before: str) -> str | None:
        """What the person says, `before` being there to be changed; None: he leaves."""

    def show(self, text: str) -> None:
        """Show lines that no model wrote."""

    def copy(self, text: str) -> None:
        """Put a text into the clipboard. Raises OptionError where that cannot be done."""

    def wait(self, talk: Talk) -> None:
        """Wait until the model's programs are ready; what is left to do is shown."""

    def stream(self, talk: Talk, parts: Iterator[Part]) -> None:
        """Show an answer as it comes."""


def run(talk: Talk, screen: Screen, verbose: bool = False) -> None:
    """Answer until the person leaves."""
    editing: str | None = None
    while (line := screen.read(talk, editing or "")) is not None:
        change, editing = editing is not None, None
        if not line.strip():
            continue
        session, settings = talk.session, talk.settings()
        try:
            outcome = _outcome(talk, screen, line, change)
            if outcome.copied:
                screen.copy(outcome.copied)
            if outcome.text:
                screen.show(outcome.text)
            if outcome.parts is not None:
                _stream(talk, screen, outcome.parts, verbose)
            elif talk.session and talk.session is session and session.kept and talk.settings() != settings:
                screen.wait(talk)
                talk.keep()
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


def _stream(talk: Talk, screen: Screen, parts: Iterator[Part], verbose: bool) -> None:
    """Show an answer, keep it, and say what there is to say about it."""
    try:
        screen.wait(talk)
        with until_interrupt(parts) as some:
            screen.stream(talk, some)
            talk.keep()
    except KeyboardInterrupt:  # before the first token: the conversation is as it was
        if not screen.commands:
            raise
        screen.show("(stopped)")
        return
    note = limit_note(talk)
    if note and screen.commands:
        screen.show(note)
    elif note and talk.constraint is not None:  # whoever reads the answers counts on their form
        talk.warn(note)
    if verbose and talk.usage is not None:
        show_usage(talk.usage, talk.conversation.turns[-1].stop if talk.conversation.turns else None)


def limit_note(talk: Talk) -> str:
    """What is said of a thought or an answer that was cut off by its limit; nothing for others."""
    turns = talk.conversation.turns
    if talk.usage is None or not turns:
        return ""
    notes = []
    if talk.usage.thoughts > talk.limits["max_thoughts"]:
        notes.append(_more("thought", "max_thoughts", talk))
    if turns[-1].stop in ("length", "cut"):
        unfit = talk.constraint if turns[-1].stop == "cut" else None
        form = f" and does not fit the {unfit.kind} yet" if unfit else ""
        notes.append(_more("answer", "max_tokens", talk, form))
    return "; ".join(notes)


def _more(what: str, name: str, talk: Talk, form: str = "") -> str:
    """That something was cut by its limit, and how to have more of it."""
    limit = talk.limits[name]
    option = f"--{name.replace('_', '-')}"
    return f"the {what} was cut at {limit:,} tokens{form}; more: /set {name} {2 * limit}, or {option} {2 * limit}"


def _outcome(talk: Talk, screen: Screen, line: str, change: bool) -> Outcome:
    if screen.commands and not change and line.strip().lower() in LEAVING:
        return Outcome(leave=True)
    if screen.commands and line.startswith("//"):
        line = line[1:]
    elif screen.commands and line.startswith("/"):
        return obey(talk, line)
    return Outcome(parts=talk.edit(line) if change else talk.say(line))


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
