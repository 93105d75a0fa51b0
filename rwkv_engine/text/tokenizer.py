"""What every tokenizer can do."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from rwkv_engine.errors import TokenError


class Decoder(Protocol):
    """Tokens of one text in, bytes out, as soon as no later token can change them.

    held  how many of the last tokens have bytes that are still to come; what came belongs to the tokens
          before them.
    """

    @property
    def held(self) -> int: ...

    def push(self, token: int) -> bytes:
        """The bytes that became certain with this token. An id without a token stands for nothing."""

    def finish(self) -> bytes:
        """What is still to come: this was the last token."""

    def fork(self) -> "Decoder":
        """A copy that goes its own way."""


class Tokenizer(Protocol):
    """Text to token ids and back.

    name      for people: "World", "bytes", or the file it came from.
    size      one more than the highest id it knows.
    end       the id that ends a document, or None: this vocabulary has none.
    ends      all ids that end a text; `end` is one of them.
    markers   special tokens by what a chat template calls them. `encode` never gives one of these.
    additive  whether a text is what its tokens stand for, one after another: then a constraint can hold it to
              a form.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def end(self) -> int | None: ...
    @property
    def ends(self) -> frozenset[int]: ...
    @property
    def markers(self) -> Mapping[str, int]: ...
    @property
    def additive(self) -> bool: ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Text that looks like a special token is only text. Raises TokenError for a lone surrogate.
        """

    def split(self, text: str) -> list[str | int]:
        """A text cut at the markers in it: texts, and the markers' ids."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD.

        Raises TokenError for an id it does not know.
        """

    def decoder(self, before: Sequence[int] = (), begun: bool = False) -> Decoder:
        """A decoder for what follows the tokens `before`: with their text it makes what `decode` makes of
        all.

        begun  write down the first token as one within a text, whatever is before it.
        """

    def token_bytes(self, token: int) -> bytes:
        """What one id stands for within a text: possibly a part of a character, and nothing for special
        tokens.

        Raises TokenError.
        """

    def __hash__(self) -> int:
        """Any number, so that what is prepared for a tokenizer can be kept beside it."""


class Bytewise:
    """The `Decoder` of tokenizers whose tokens are bytes that do not depend on their neighbours."""

    __slots__ = ("_tokenizer", "held")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.held = tokenizer, 0

    def push(self, token: int) -> bytes:
        """See `Decoder`."""
        try:
            return self._tokenizer.token_bytes(token)
        except TokenError:
            return b""

    def finish(self) -> bytes:
        """See `Decoder`."""
        return b""

    def fork(self) -> "Bytewise":
        """See `Decoder`."""
        return self


def utf8(text: str) -> bytes:
    """The text's bytes. Raises TokenError for a lone surrogate, which has none, and for what is no text."""
    if not isinstance(text, str):
        raise TokenError(f"text: got {type(text).__name__}, want a str")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenError(
            f"the text has a lone surrogate at position {error.start}; it cannot be encoded"
        ) from None
