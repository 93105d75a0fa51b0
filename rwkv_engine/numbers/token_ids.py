"""Token ids as users give them: lists, arrays of whole numbers, or anything else that yields them."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from rwkv_engine.errors import TokenError


def token_ids(tokens: Iterable[int], vocab: int, what: str = "tokens") -> np.ndarray:
    """The ids as int64 [T], each in [0, vocab); T may be 0.

    Raises TokenError, with the id and its position.
    """
    if type(tokens) is list and len(tokens) == 1 and type(tokens[0]) is int and 0 <= tokens[0] < vocab:
        return np.array(tokens, np.int64)  # a token in decoding: what follows takes 3 us
    ids = flat(tokens, what)
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab))
    if wrong.size:
        at = int(wrong[0])
        raise TokenError(
            f"token {int(ids[at])} at position {at} is out of range; this model has ids 0 to {vocab - 1}"
        )
    return ids.astype(np.int64)


def flat(tokens: Iterable[int], what: str = "tokens") -> np.ndarray:
    """The ids as whole numbers [T], of whatever size.

    Raises TokenError for text, bytes, and everything else.
    """
    if isinstance(tokens, (str, bytes, bytearray, memoryview)) or not isinstance(tokens, Iterable):
        raise _wrong(what, f"got {type(tokens).__name__}")
    listed: Any = tokens if isinstance(tokens, np.ndarray) else list(tokens)
    try:
        ids = np.asarray(listed)
    except (ValueError, OverflowError):  # lists of different lengths
        raise _wrong(what, "got lists within a list") from None
    if not ids.size and ids.ndim == 1:
        return np.empty(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise _wrong(what, f"got shape {list(ids.shape)} of type {ids.dtype}")
    return ids


def _wrong(what: str, got: str) -> TokenError:
    return TokenError(f"{what}: {got}, want token ids: a flat list, an array or an iterable of whole numbers")
