"""Tokenizers that come as a tokenizer.json beside the weights, read by the `tokenizers` library."""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import tokenizers

from rwkv_engine.errors import CheckpointError, TokenError
from rwkv_engine.numbers.token_ids import flat
from rwkv_engine.system.rust import refusing
from rwkv_engine.text.companions import read_text
from rwkv_engine.text.decoding import ChainDecoder, plan_of
from rwkv_engine.text.numbering import FILLER, renumbered
from rwkv_engine.text.tokenizer import Bytewise, Decoder, utf8

#: usual names of the token that ends a document, the most common first
END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<s>")
#: first line of a tokenizer's text that also holds its end tokens; the tokenizer.json follows
_ENDS = '{"ends":'
_WORD = re.compile(r"\w")


class Json:
    """A tokenizer.json.

    Text that looks like a special token is encoded as plain text, so a user cannot type the end of a
    document.

    rows  number of ids that the model has; ids without a token decode to nothing.
    """

    @classmethod
    def of_file(cls, path: Path, rows: int = 0) -> "Json":
        """Read a file. Raises CheckpointError."""
        name = f"tokenizer.json ({path.parent.name}/{path.name})"
        return cls.of_text(read_text(path, "tokenizer.json"), name, str(path), rows)

    @classmethod
    def of_text(cls, text: str, name: str, path: str | None = None, rows: int = 0) -> "Json":
        """Read the text of a tokenizer.json, or a value of `text`. Raises CheckpointError."""
        with refusing(CheckpointError, f"{path or name}: not a readable tokenizer.json"):
            told, _, rest = text.partition("\n") if text.startswith(_ENDS) else ("", "", text)
            ends = [int(end) for end in json.loads(told)["ends"]] if told else []
            model = tokenizers.Tokenizer.from_str(rest)
            filled = renumbered(rest, model.token_to_id, rows)
            model = tokenizers.Tokenizer.from_str(filled) if filled else model
            return cls(model, name, rest, rows).ending(ends)

    def __init__(self, model: tokenizers.Tokenizer, name: str, text: str, rows: int = 0) -> None:
        self._model, self.name, self._text = model, name, text
        model.encode_special_tokens = True
        model.no_padding()
        model.no_truncation()
        vocab = model.get_vocab(with_added_tokens=True)
        self.size = max(vocab.values(), default=-1) + 1
        self._rows = max(rows, self.size)
        added = {i: token for i, token in model.get_added_tokens_decoder().items() if token.special}
        self._special = {*added, *(i for token, i in vocab.items() if token.startswith(FILLER))}
        named = {
            i: token
            for i, token in added.items()
            if token.content.removeprefix(FILLER) == token.content != ""
        }
        self.markers = {token.content: i for i, token in named.items()}
        self._marked = {token.content: token for token in named.values()}
        self._marker = _pattern(self._marked)
        self._plan = plan_of(model.decoder)
        self.additive = self._plan.additive
        self._told: list[int] = []
        self._end_at([i for i in map(model.token_to_id, END_NAMES) if i is not None][:1])

    def _end_at(self, ends: list[int]) -> None:
        self.ends, self.end = frozenset(ends), ends[0] if ends else None

    def ending(self, ends: Sequence[int]) -> "Json":
        """This tokenizer with the end tokens `ends` that the model has; if there is none, the vocabulary's
        own.
        """
        self._told = [end for end in ends if 0 <= end < self._rows]
        if self._told:
            self._end_at(self._told)
        return self

    @property
    def text(self) -> str:
        """The text from which `of_text` makes the same tokenizer, whatever files are beside it."""
        return f"{_ENDS} {json.dumps(self._told)}}}\n{self._text}" if self._told else self._text

    def id_of(self, token: str) -> int | None:
        """The id of a token by its text, or None."""
        found = self._model.token_to_id(token)
        return None if found is None else int(found)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without tokens that the file would add at the beginning or end.

        Raises TokenError for lone surrogates.
        """
        utf8(text)
        with refusing(TokenError, f"{self.name} cannot encode this text"):
            return list(self._model.encode(text, add_special_tokens=False).ids)

    def split(self, text: str) -> list[str | int]:
        """See `Tokenizer`."""
        parts, at = list[str | int](), 0
        for found in self._marker.finditer(text) if self._marker else ():
            token, (start, stop) = self._marked[found[0]], found.span()
            if token.single_word and _WORD.search(text[max(0, start - 1) : start] + text[stop : stop + 1]):
                continue
            while token.lstrip and start > at and text[start - 1].isspace():
                start -= 1
            while token.rstrip and stop < len(text) and text[stop].isspace():
                stop += 1
            parts += [text[at:start], self.markers[found[0]]]
            at = stop
        return [*parts, text[at:]]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens are left out."""
        decoder, out = self.decoder(), bytearray()
        for token in flat(ids).tolist():
            self._inside(token)
            out += decoder.push(token)
        return (out + decoder.finish()).decode("utf-8", errors="replace")

    def decoder(self, before: Sequence[int] = (), begun: bool = False) -> Decoder:
        """See `Tokenizer`."""
        if self._plan.exact:
            return Bytewise(self)
        return ChainDecoder(self._plan, self._piece, before, begun)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id inside a text; exact for byte-level vocabularies."""
        self._inside(token)
        return self._plan.token_bytes(self._piece(token))

    def _piece(self, token: int) -> str | None:
        """The token as the vocabulary writes it, or None for special tokens and ids without a token."""
        known = 0 <= token < self.size and token not in self._special
        return self._model.id_to_token(token) if known else None

    def _inside(self, token: int) -> None:
        if not 0 <= token < self._rows:
            raise TokenError(f"token {token} is not in this vocabulary; want 0 to {self.size - 1}")


def _pattern(tokens: Collection[str]) -> re.Pattern[str] | None:
    """A pattern that finds special tokens as the library does: leftmost first, then the longest."""
    return (
        re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
        if tokens
        else None
    )
