"""Turns errors and panics of libraries written in Rust into the engine's errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from rwkv_engine.errors import EngineError, brief


@contextmanager
def refusing(kind: type[EngineError], what: str) -> Iterator[None]:
    """Raise `kind`, with `what` and the library's reason, for any error or panic of the library in the block.

    A panic is not an `Exception`: it would pass all handlers of the caller and end the program.
    """
    try:
        yield
    except EngineError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what} ({brief(error, 120)})") from None
