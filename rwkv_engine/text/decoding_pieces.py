"""Decoding steps that look at characters: byte tokens, and steps behind one that joins all tokens."""

import codecs
import functools
import re

#: a byte written as a token
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's letters for bytes: printable bytes are themselves, the others are 256, 257 ... in order."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


def of_letters(text: str) -> bytes:
    """ByteLevel: the bytes that a token's letters stand for; for an added token, the bytes of its text."""
    letters = _byte_of_letter()
    return bytes(letters[letter] for letter in text) if letters.keys() >= set(text) else text.encode("utf-8")


class ByteRuns:
    """ByteFallback: tokens such as <0xF0>.

    A run of them is one text; if the run is not valid UTF-8 as a whole, each byte becomes U+FFFD.
    """

    __slots__ = ("_bad", "_broken", "_text", "waiting")

    def __init__(self, begun: bool) -> None:
        self.waiting = 0
        self._clear()

    def _clear(self) -> None:
        self._bad, self._text, self._broken, self.waiting = False, "", b"", 0

    def push(self, token: str) -> list[str]:
        """See `Step`."""
        byte = BYTE.fullmatch(token)
        if not byte:
            out = [*self.finish(), token]
            self._clear()
            return out
        if self._bad:
            return ["\ufffd"]
        self.waiting += 1
        try:
            data = self._broken + bytes([int(byte[1], 16)])
            text, used = codecs.utf_8_decode(data, "strict", False)
            self._text, self._broken = self._text + text, data[used:]
        except UnicodeDecodeError:  # whatever comes, this run is no text
            self._bad, count, self.waiting = True, self.waiting, 0
            return ["\ufffd"] * count
        return []

    def finish(self) -> list[str]:
        """See `Step`."""
        if not self.waiting:
            return []
        return ["\ufffd"] * self.waiting if self._broken else [self._text]


class StrippedPieces:
    """Strip, for one token that comes in pieces: removes up to `start` and `stop` characters at its ends."""

    __slots__ = ("_content", "_held", "_start", "_stop", "waiting")

    def __init__(self, content: str, start: int, stop: int, begun: bool) -> None:
        self._content, self._start, self._stop = content, 0 if begun else start, stop
        self._held, self.waiting = "", 0

    def push(self, token: str) -> list[str]:
        """See `Step`."""
        text = token
        while self._start and text:
            if text[0] != self._content:
                self._start = 0
                break
            text, self._start = text[1:], self._start - 1
        text = self._held + text
        ending = min(self._stop, len(text) - len(text.rstrip(self._content)))
        self._held = text[len(text) - ending :]
        self.waiting = 1 if self._held else 0
        return [text[: len(text) - ending]]

    def finish(self) -> list[str]:
        """See `Step`."""
        return []


class ReplacedPieces:
    """Replace, of a string and not a pattern, for one token that comes in pieces."""

    __slots__ = ("_held", "_new", "_old", "waiting")

    def __init__(self, old: str, new: str, begun: bool) -> None:
        self._old, self._new, self._held, self.waiting = old, new, "", 0

    def push(self, token: str) -> list[str]:
        """See `Step`."""
        *before, last = (self._held + token).split(self._old)
        most = min(len(self._old) - 1, len(last))
        keep = next((n for n in range(most, 0, -1) if last.endswith(self._old[:n])), 0)
        self._held = last[len(last) - keep :]
        self.waiting = 1 if keep else 0
        return [self._new.join([*before, last[: len(last) - keep]])]

    def finish(self) -> list[str]:
        """See `Step`."""
        return [self._held]
