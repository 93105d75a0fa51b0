"""Every error the engine raises on purpose, as one tree.

A message is one sentence: what, where, got, wanted, what to do. `assert` is for the engine's own bugs.
"""


class EngineError(Exception):
    """The root: `except EngineError` catches whatever the engine refuses."""


class CheckpointError(EngineError):
    """A model file that cannot be read, or whose numbers cannot be used."""


class UnknownLayout(CheckpointError):
    """The file is readable, but it is no model this engine runs."""


class MissingTensor(CheckpointError):
    """A tensor that the family needs is not in the checkpoint."""


class WrongShape(CheckpointError):
    """A tensor whose shape does not fit the rest of the checkpoint."""


class StateError(EngineError):
    """A state that is damaged, or that belongs to another model."""


class SessionError(EngineError):
    """A kept talk that is missing, of another model, or whose folder cannot be read or written."""


class TokenError(EngineError):
    """A token id outside the vocabulary, no token at all, or text that cannot be encoded."""


class OptionError(EngineError, ValueError):
    """An option whose value cannot be meant."""


class DownloadError(EngineError):
    """A model that cannot be fetched: no answer, no room for it, or not the content that was promised."""


class MissingExtra(EngineError, ImportError):
    """A feature that needs an optional dependency which is not installed."""


class UnsupportedSystem(EngineError):
    """A Python or processor that the engine cannot run on."""


def shown(name: object) -> str:
    """A name out of a file, fit for a one-line message: quoted, escaped, at most 80 characters."""
    text = repr(name)
    return text if len(text) <= 80 else text[:76] + "...'"
