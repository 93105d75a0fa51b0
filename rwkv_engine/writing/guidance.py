"""The border to `llguidance`: the library, and what it is told of a tokenizer."""

import functools
from typing import Any

from rwkv_engine.errors import EngineError
from rwkv_engine.system.extras import missing
from rwkv_engine.text import Tokenizer
from rwkv_engine.writing.endings import Endings

#: tokenizers whose vocabularies stay prepared; World's takes some 40 MB
PREPARED = 4


def llguidance() -> Any:
    """The library. Raises MissingExtra."""
    try:
        import llguidance as library
    except ImportError:
        raise missing("structured output", "structured", "llguidance") from None
    return library


@functools.lru_cache(PREPARED)
def vocabulary_of(tokenizer: Tokenizer) -> tuple[Any, Endings]:
    """llguidance's form of a tokenizer and the search for endings in its tokens, made once for each of the
    last few.
    """
    library = llguidance()
    return library.LLTokenizer(library.TokenizerWrapper(_Bytes(tokenizer))), Endings(tokenizer)


class _Bytes:
    """What llguidance asks of a tokenizer: the bytes of each id, and the ids of bytes.

    It cannot do without an end token, so one is added behind all others: where a text may end is asked of the
    matcher.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encode = tokenizer.encode
        self.eos_token_id, self.bos_token_id = tokenizer.size, None
        self.tokens = [
            b"" if i in tokenizer.ends else tokenizer.token_bytes(i) for i in range(tokenizer.size)
        ]
        self.tokens.append(b"")
        self.special_token_ids = [tokenizer.size]
        self._known: dict[bytes, int] = {}

    def __call__(self, text: bytes) -> list[int]:
        try:
            ids = self._encode(text.decode("utf-8"))
        except (EngineError, UnicodeDecodeError):
            return self._longest(text)
        # many a tokenizer puts a space in front of a text, or changes its letters
        return ids if b"".join(self.tokens[i] for i in ids) == text else self._longest(text)

    def _longest(self, text: bytes) -> list[int]:
        """At each place the longest token that fits; up to where there is none."""
        ids, at = list[int](), 0
        if not self._known:
            self._known = {token: i for i, token in enumerate(self.tokens) if token}
        known = self._known
        while at < len(text):
            fits = (text[at:end] for end in range(len(text), at, -1))
            token = next((piece for piece in fits if piece in known), None)
            if token is None:
                break
            ids.append(known[token])
            at += len(token)
        return ids
