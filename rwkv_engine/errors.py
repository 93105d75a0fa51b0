"""All errors that the engine raises on purpose, as one tree:

    EngineError                   any refusal of the engine
    ├── CheckpointError           a model file that cannot be read, or has unusable numbers
    │   ├── UnknownLayout         readable, but no model that this engine runs
    │   ├── MissingTensor         a tensor that the family needs is missing
    │   └── WrongShape            a tensor that does not fit the rest
    ├── StateError                a state that is damaged, or of another model
    ├── SessionError              a conversation that is missing, unreadable, or of another model
    ├── TokenError                an id outside the vocabulary, no tokens, or text that has no tokens
    ├── OptionError               an option with an invalid value; also a ValueError
    ├── DownloadError             a model that cannot be downloaded
    ├── MissingExtra              an optional dependency that is not installed; also an ImportError
    └── UnsupportedSystem         a Python or processor that the engine cannot run on

A message is one sentence: what, where, got, wanted, what to do. `assert` is for the engine's own bugs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

E = TypeVar("E", bound="EngineError")


class EngineError(Exception):
    """The base class: `except EngineError` catches all errors that the engine raises on purpose.

    str(error)   the message.
    path         the file or folder concerned.
    name         the tensor, option, plane, model or conversation concerned.
    got, wanted  the value found, and the value expected.
    A field that is not known is None.
    """

    def __init__(
        self,
        sentence: str = "",
        *,
        path: object = None,
        name: str | None = None,
        got: Any = None,
        wanted: Any = None,
    ) -> None:
        super().__init__(sentence)
        self.path: str | None = None if path is None else str(path)
        self.name, self.got, self.wanted = name, got, wanted

    @classmethod
    def of(cls: type[E], name: str, got: object, wanted: str, then: str = "") -> E:
        """An error about one value, with the message "NAME: got GOT, want WANTED; THEN"."""
        then, found = f"; {then}" if then else "", repr(got)
        found = found if len(found) <= 200 else found[:197] + "..."
        return cls(f"{name}: got {found}, want {wanted}{then}", name=name, got=got, wanted=wanted)


class CheckpointError(EngineError):
    """A model file that cannot be read, or has unusable numbers."""


class UnknownLayout(CheckpointError):
    """The file is readable, but not a model that this engine runs."""


class MissingTensor(CheckpointError):
    """A tensor that the family needs is not in the checkpoint."""


class WrongShape(CheckpointError):
    """A tensor whose shape does not fit the rest of the checkpoint."""


class StateError(EngineError):
    """A state that is damaged, or that belongs to another model."""


class SessionError(EngineError):
    """A stored conversation that is missing, of another model, or whose folder cannot be read or written."""


class TokenError(EngineError):
    """A token id outside the vocabulary, no token at all, or text that cannot be encoded."""


class OptionError(EngineError, ValueError):
    """An option with an invalid value."""


class DownloadError(EngineError):
    """A model that cannot be downloaded: no answer, no space, or the wrong content."""


class MissingExtra(EngineError, ImportError):
    """A feature that needs an optional dependency which is not installed."""


class UnsupportedSystem(EngineError):
    """A Python or processor that the engine cannot run on."""


@contextmanager
def about(path: object) -> Iterator[None]:
    """Errors raised inside concern this file: sets their `path`, and puts it in front of the message."""
    try:
        yield
    except (CheckpointError, StateError) as error:
        error.path = error.path or str(path)
        if error.path not in str(error):
            error.args = (f"{error.path}: {error}",)
        raise


def shown(name: object) -> str:
    """A name from a file, made safe for a one-line message: quoted, escaped, at most 80 characters."""
    text = repr(name)
    return text if len(text) <= 80 else text[:76] + "...'"


def brief(text: object, most: int = 200) -> str:
    """Foreign text as one line for a message: white space collapsed, at most `most` characters."""
    line = " ".join(str(text).encode("utf-8", "backslashreplace").decode().split())
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line[: most + 1])
    return line if len(line) <= most else line[: most - 3] + "..."
