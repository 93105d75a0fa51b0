"""The World tokenizer of RWKV-5 and later: greedy longest match on bytes, 65,529 tokens.

Vocabulary: rwkv_vocab_v20230424 of PyPI's `rwkv` 0.8.32 (Apache-2.0, see NOTICE), as `world.bin` (see
make_world). Ids count from 1; 0 ends a document and 65,530 to 65,535 are unused: these decode to nothing.
"""

import functools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

import numpy as np

from rwkv_engine.errors import TokenError
from rwkv_engine.numbers.token_ids import flat
from rwkv_engine.text.tokenizer import Bytewise, utf8

COUNT = 65529
SIZE = 65536
#: the end of a document in chat templates of World models
END = "<|rwkv_tokenizer_end_of_text|>"
#: shorter texts, in bytes, are encoded in plain Python, which needs no compiling
SHORT = 4096
#: slots of the edge table (about 3 for every edge), and room for the nodes
SLOTS, NODES = 1 << 19, 1 << 18


@functools.cache
def _lengths_and_bytes() -> tuple[np.ndarray, bytes]:
    """The tokens' lengths [COUNT] u8, and their concatenated bytes."""
    data = zlib.decompress(files("rwkv_engine.text").joinpath("world.bin").read_bytes())
    return np.frombuffer(data[:COUNT], np.uint8), data[COUNT:]


@functools.cache
def _tokens() -> list[bytes]:
    """Bytes of every id; nothing for 0 and the unused ones."""
    lengths, data = _lengths_and_bytes()
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    starts = [0, *ends]
    return [b"", *(data[a:b] for a, b in zip(starts, ends, strict=False)), *[b""] * (SIZE - COUNT - 1)]


@functools.cache
def _ids() -> dict[bytes, int]:
    """Token -> id."""
    return {token: i for i, token in enumerate(_tokens()) if token}


@functools.cache
def _longest() -> bytes:
    """The length of the longest token that begins with two given bytes, at index 256 * first + second.

    1 if there is none.
    """
    lengths, data = _lengths_and_bytes()
    starts = (np.cumsum(lengths, dtype=np.int64) - lengths)[lengths > 1]
    values = np.frombuffer(data, np.uint8).astype(np.int64)
    table = np.ones(1 << 16, np.uint8)
    np.maximum.at(table, 256 * values[starts] + values[starts + 1], lengths[lengths > 1])
    return table.tobytes()


@functools.cache
def _trie() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arrays of kernels.longest_match."""
    from rwkv_engine.kernels.longest_match import build

    lengths, data = _lengths_and_bytes()
    edges, nodes, tokens = np.full(SLOTS, -1, np.int32), np.zeros(SLOTS, np.int32), np.zeros(NODES, np.int32)
    used = build(np.frombuffer(data, np.uint8), lengths, edges, nodes, tokens)
    return edges, nodes, tokens[:used].copy()


def slow_encode(data: bytes) -> list[int]:
    """The ids of bytes, in plain Python: the longest token that matches at each position."""
    ids, longest = _ids(), _longest()
    out, at = [], 0
    while at < len(data):
        two = int.from_bytes(data[at : at + 2].ljust(2), "big")
        length = min(longest[two], len(data) - at)
        while data[at : at + length] not in ids:
            length -= 1
        out.append(ids[data[at : at + length]])
        at += length
    return out


def fast_encode(data: bytes) -> list[int]:
    """The same ids from compiled code."""
    from rwkv_engine.kernels.longest_match import encode

    ids = np.empty(len(data), np.int32)
    return ids[: encode(np.frombuffer(data, np.uint8), *_trie(), ids)].tolist()


class World:
    """The tokenizer of World models.

    rows  number of ids that the model has; ids without a token decode to nothing.
    """

    name, size, end, additive = "World", SIZE, 0, True
    ends: frozenset[int] = frozenset({0})
    markers: Mapping[str, int] = {END: 0}

    def __init__(self, rows: int = SIZE) -> None:
        self._rows = max(rows, SIZE)

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises TokenError for a lone surrogate; every other text can be encoded."""
        data = utf8(text)
        return slow_encode(data) if len(data) < SHORT else fast_encode(data)

    def split(self, text: str) -> list[str | int]:
        """See `Tokenizer`."""
        first, *others = text.split(END)
        return [first, *(part for other in others for part in (0, other))]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return b"".join(self.token_bytes(token) for token in flat(ids).tolist()).decode(
            "utf-8", errors="replace"
        )

    def decoder(self, before: Sequence[int] = (), begun: bool = False) -> Bytewise:
        """See `Tokenizer`."""
        return Bytewise(self)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id: possibly part of a character."""
        if not 0 <= token < self._rows:
            raise TokenError(f"token {token} is not in the World vocabulary; want 0 to {SIZE - 1}")
        return _tokens()[token] if token < SIZE else b""
