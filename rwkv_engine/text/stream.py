"""Streaming text: only whole characters are output, and nothing that may be the start of a stop string."""

import codecs
from collections.abc import Sequence

from rwkv_engine.errors import OptionError


class Characters:
    """Bytes in, text out; an incomplete character waits for its remaining bytes."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def fork(self) -> "Characters":
        """An independent copy."""
        twin = Characters()
        twin._decoder.setstate(self._decoder.getstate())
        return twin

    @property
    def waiting(self) -> bool:
        """Whether a character is incomplete."""
        return bool(self._decoder.getstate()[0])

    def push(self, data: bytes) -> str:
        """The text that these bytes complete."""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """U+FFFD for an incomplete character: there are no more bytes."""
        return self._decoder.decode(b"", final=True)


class Stops:
    """Bytes in, bytes out, until one of the stop strings occurs.

    Bytes that may be the start of a stop string are held back until that is decided. If two end at the same
    byte, the longer one counts. Raises OptionError for an empty stop string.
    """

    __slots__ = ("_held", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str):
            raise OptionError.of("stop", stops, "a list of texts")
        if any(not isinstance(stop, str) or not stop for stop in stops):
            raise OptionError("stop: want texts that are not empty")
        try:
            self._stops = [stop.encode("utf-8") for stop in stops]
        except UnicodeEncodeError:
            raise OptionError("stop: a text has a lone surrogate, which no model can write") from None
        self._held = b""

    @property
    def held(self) -> int:
        """Bytes that are held back."""
        return len(self._held)

    def push(self, data: bytes) -> tuple[bytes, bool]:
        """(what may be shown now, whether a stop string has occurred; what came before it is then all shown)."""
        data = self._held + data
        found = [at for at in (data.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self._held = b""
            return data[: min(found)], True
        keep = max((self._beginning(data, stop) for stop in self._stops), default=0)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep], False

    def finish(self) -> bytes:
        """What is still held back: no stop string came of it."""
        data, self._held = self._held, b""
        return data

    @staticmethod
    def _beginning(data: bytes, stop: bytes) -> int:
        """Length of the longest suffix of `data` that is a prefix of `stop`."""
        return next((n for n in range(min(len(stop) - 1, len(data)), 0, -1) if stop.startswith(data[-n:])), 0)
