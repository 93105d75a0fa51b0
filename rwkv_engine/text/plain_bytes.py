"""Bytes as tokens, for a vocabulary of 256."""

from collections.abc import Iterable, Mapping, Sequence

from rwkv_engine.errors import TokenError
from rwkv_engine.numbers.token_ids import flat
from rwkv_engine.text.tokenizer import Bytewise, utf8


class Bytes:
    """One token for each byte of UTF-8. Id 0 ends a document.

    rows  number of ids that the model has; ids from 256 on decode to nothing.
    """

    name, size, end, additive = "bytes", 256, 0, True
    ends: frozenset[int] = frozenset({0})
    markers: Mapping[str, int] = {}

    def __init__(self, rows: int = 256) -> None:
        self._rows = max(rows, self.size)

    def encode(self, text: str) -> list[int]:
        """The text's UTF-8 bytes. Raises TokenError for a lone surrogate."""
        return list(utf8(text))

    def split(self, text: str) -> list[str | int]:
        """The text alone: this tokenizer has no markers."""
        return [text]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of bytes."""
        return b"".join(self.token_bytes(token) for token in flat(ids).tolist()).decode(
            "utf-8", errors="replace"
        )

    def decoder(self, before: Sequence[int] = (), begun: bool = False) -> Bytewise:
        """See `Tokenizer`."""
        return Bytewise(self)

    def token_bytes(self, token: int) -> bytes:
        """One byte."""
        if not 0 <= token < self._rows:
            raise TokenError(f"token {token} is no byte; want 0 to 255")
        return bytes([token]) if token < self.size else b""
