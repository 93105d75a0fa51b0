"""Bytes as tokens, for a vocabulary of 256."""

from collections.abc import Iterable

from rwkv_engine.errors import TokenError


class Bytes:
    """Token = byte of UTF-8. Id 0 is the byte 0 and ends a document."""

    name, size, end = "bytes", 256, 0

    def encode(self, text: str) -> list[int]:
        """The text's UTF-8 bytes."""
        return list(text.encode("utf-8", errors="surrogatepass"))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of bytes."""
        return b"".join(self.token_bytes(token) for token in ids).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """One byte."""
        if not 0 <= token < 256:
            raise TokenError(f"token {token} is no byte; want 0 to 255")
        return bytes([token])
