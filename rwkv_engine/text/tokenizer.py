"""What every tokenizer can do."""

from collections.abc import Iterable
from typing import Protocol


class Tokenizer(Protocol):
    """Text to token ids and back.

    name  for people: "World", "bytes", or the file it came from.
    size  one more than the highest id it knows.
    end   the id that ends a document.
    """

    name: str
    size: int
    end: int

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Text that looks like a special token is only text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD. Raises TokenError for an id it does not know."""

    def token_bytes(self, token: int) -> bytes:
        """What one id stands for: possibly a part of a character, and nothing for special tokens. Raises TokenError."""

    def __hash__(self) -> int:
        """Any number, so that what is prepared for a tokenizer can be kept beside it."""
