"""The loop of a talk: read a line, answer it or obey it, keep what came of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rwkv_engine_cli.talk.commands import Outcome, obey
from rwkv_engine_cli.talk.running import Talk

from rwkv_engine.chat.answer import Part
from rwkv_engine.errors import CheckpointError, EngineError


class Screen(Protocol):
    """Where a talk is seen.

    commands  whether lines that begin with a slash are commands.
    """

    commands: bool

    def read(self, talk: Talk, before: str) -> str | None:
        """What the person says, `before` being there to be changed; None: he leaves."""

    def show(self, text: str) -> None:
        """Show lines that no model wrote."""

    def stream(self, talk: Talk, parts: Iterator[Part]) -> None:
        """Show an answer as it comes."""


def run(talk: Talk, screen: Screen) -> None:
    """Talk until the person leaves."""
    editing: str | None = None
    while (line := screen.read(talk, editing or "")) is not None:
        change, editing = editing is not None, None
        if not line.strip():
            continue
        session, settings = talk.session, talk.settings()
        try:
            outcome = _outcome(talk, screen, line, change)
            if outcome.text:
                screen.show(outcome.text)
            if outcome.parts is not None:
                with until_interrupt(outcome.parts) as parts:
                    screen.stream(talk, parts)
                    talk.keep()
            elif talk.session and talk.session is session and session.kept and talk.settings() != settings:
                talk.keep()
            editing = outcome.edit
        except CheckpointError:
            raise
        except EngineError as error:
            if not screen.commands:
                raise
            screen.show(" ".join(str(error).split()))
            continue
        if outcome.leave:
            return


def _outcome(talk: Talk, screen: Screen, line: str, change: bool) -> Outcome:
    if screen.commands and line.startswith("//"):
        line = line[1:]
    elif screen.commands and line.startswith("/"):
        return obey(talk, line)
    return Outcome(parts=talk.edit(line) if change else talk.say(line))


@contextmanager
def until_interrupt(parts: Iterator[Part]) -> Iterator[Iterator[Part]]:
    """The same parts up to the first ctrl-C, which ends the answer between two tokens; a second one ends the program."""
    asked = False

    def stop(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def some() -> Iterator[Part]:
        for part in parts:
            yield part
            if asked:
                break
        parts.close()  # type: ignore[attr-defined]  # what was said so far counts

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield some()
    finally:
        signal.signal(signal.SIGINT, before)
