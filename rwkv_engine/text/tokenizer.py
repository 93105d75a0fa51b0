"""The interface of all tokenizers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from rwkv_engine.errors import TokenError


class Decoder(Protocol):
    """Tokens of one text in, bytes out, as soon as no later token can change them.

    held  how many of the last tokens still have bytes to come.
    """

    @property
    def held(self) -> int: ...

    def push(self, token: int) -> bytes:
        """The bytes that became certain with this token. An id without a token adds nothing."""

    def finish(self) -> bytes:
        """The remaining bytes: there are no more tokens."""

    def fork(self) -> "Decoder":
        """An independent copy."""


class Tokenizer(Protocol):
    """Text to token ids and back.

    name      for people: "World", "bytes", or a file's name.
    size      the highest id + 1.
    end       the id that ends a document, or None if the vocabulary has none.
    ends      all ids that end a text, `end` included.
    markers   special tokens by their text in chat templates. `encode` never returns one of them.
    additive  whether a text is the concatenation of its tokens' bytes, as constraints need it.
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
        """The text cut at its markers: strings, and the ids of markers."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; invalid UTF-8 becomes U+FFFD.

        Raises TokenError for an unknown id.
        """

    def decoder(self, before: Sequence[int] = (), begun: bool = False) -> Decoder:
        """A decoder for the text after the tokens `before`; both texts together equal `decode` of all ids.

        begun  write the first token as one inside a text, whatever `before` is.
        """

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id inside a text: possibly part of a character; nothing for special tokens.

        Raises TokenError.
        """

    def __hash__(self) -> int:
        """So that caches can be kept for each tokenizer."""


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
