"""Tokenizers that come as a tokenizer.json beside the weights, read by the `tokenizers` library."""

import functools
from collections.abc import Iterable
from pathlib import Path

import tokenizers

from rwkv_engine.errors import CheckpointError, TokenError

#: names under which vocabularies keep the token that ends a document, the most usual first
END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<s>")


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's stand-in letters for bytes: printable ones stand for themselves, the others for 256, 257 ... in order."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


class Json:
    """A tokenizer.json. Special tokens inside a text are only text; the end of a document is never read out of what a user typed."""

    @classmethod
    def of_file(cls, path: Path) -> "Json":
        """Read a file. Raises CheckpointError."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: not a readable tokenizer.json ({str(error)[:120]})") from None
        return cls.of_text(text, f"tokenizer.json ({path.parent.name}/{path.name})", str(path))

    @classmethod
    def of_text(cls, text: str, name: str, path: str | None = None) -> "Json":
        """Read the text of a tokenizer.json. Raises CheckpointError."""
        try:
            model = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception for whatever is wrong with it
            raise CheckpointError(
                f"{path or name}: not a readable tokenizer.json ({str(error)[:120]})"
            ) from None
        return cls(model, name, text)

    def __init__(self, model: tokenizers.Tokenizer, name: str, text: str) -> None:
        self._model = model
        self.name, self.text = name, text
        self._model.encode_special_tokens = True
        self.size = self._model.get_vocab_size(with_added_tokens=True)
        self._special = {i for i, token in self._model.get_added_tokens_decoder().items() if token.special}
        known = (self._model.token_to_id(name) for name in END_NAMES)
        self.end = next((i for i in known if i is not None), 0)
        self._byte_level = type(self._model.decoder).__name__ == "ByteLevel"

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without any that the file would add in front or behind. Raises TokenError for lone surrogates."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TokenError(
                f"the text has a lone surrogate at position {error.start}; it cannot be encoded"
            ) from None
        return list(self._model.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens left out."""
        if self._byte_level:
            return b"".join(self.token_bytes(token) for token in ids).decode("utf-8", errors="replace")
        return str(self._model.decode(list(ids), skip_special_tokens=True))

    def token_bytes(self, token: int) -> bytes:
        """What one id stands for; exact for byte-level vocabularies, else what it decodes to on its own."""
        if not 0 <= token < self.size:
            raise TokenError(f"token {token} is not in this vocabulary; want 0 to {self.size - 1}")
        piece = self._model.id_to_token(token)
        if piece is None or token in self._special:
            return b""
        letters = _byte_of_letter()
        if self._byte_level and all(letter in letters for letter in piece):
            return bytes(letters[letter] for letter in piece)
        if self._byte_level:
            return str(piece).encode("utf-8")  # an added token that is stored as it is
        return str(self._model.decode([token], skip_special_tokens=False)).encode("utf-8")
