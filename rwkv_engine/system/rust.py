"""The border to libraries written in Rust: whatever goes wrong behind it is one of the engine's errors on
this side.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rwkv_engine.errors import EngineError, brief


@contextmanager
def refusing(kind: type[EngineError], what: str) -> Iterator[None]:
    """Raise `kind`, with `what` and the library's reason, for an error or a panic of the library inside the
    block.

    A panic is no `Exception`: it would pass every handler of the caller's and end the program.
    """
    try:
        yield
    except EngineError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what} ({brief(error, 120)})") from None
