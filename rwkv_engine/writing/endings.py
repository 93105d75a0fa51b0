"""How to end a constrained text soon: a search over a grammar matcher for few tokens that make the text
whole.

The matcher is llguidance's `LLMatcher`, which can be copied, fed, and asked which tokens may follow. The
search takes its chances: first it closes JSON in two orders of preference, then it goes some ways at random,
from fixed seeds, and keeps the shortest that arrives.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from rwkv_engine.text import Tokenizer

#: what is taken first, by the first byte of a token: what closes before what opens, and what goes on to the
#: next part before digits
ORDERS = (b'}]",:0123456789.tfn-[{ \n', b'"}],:0123456789.tfn-[{ \n')
#: ways at random, tokens of each, and tokens that are tried at each place of one for being the last
RANDOM_WAYS, RANDOM_LENGTH, TRIED = 4, 40, 48
#: places at which one way asks what may follow: the first ones, and those that are tried when no other
#: arrived. A way that turns in a circle, such as the digits of [0-9]*x, goes on for as long as it may
SHORT_WAY, LONG_WAY = 250, 1000
#: ids that are looked at on one long way: with World's 65,536 ids it asks at 300 places
LOOKED_AT = 20_000_000

_Way = Callable[[np.ndarray], int]


class Endings:
    """The search, for one tokenizer."""

    __slots__ = ("_free", "_lengths", "_quote", "_ranks", "_single", "_size", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.size)]
        self._tokenizer, self._size = tokenizer, tokenizer.size
        lengths = np.array([len(token) for token in tokens])
        first = np.array([token[0] if token else 0 for token in tokens])
        self._single, self._lengths = lengths == 1, lengths
        self._ranks = []
        for order in ORDERS:
            place = np.full(256, len(order))
            place[list(order)] = np.arange(len(order))
            self._ranks.append(place[first] * 1000 + np.minimum(lengths, 999))
        known = {token: i for i, token in enumerate(tokens) if len(token) == 1}
        self._quote = known.get(b'"')
        #: where both of these may come, the text is inside a free string, whose end is a quotation mark
        self._free = [known[letter] for letter in (b"q", b"~") if letter in known]

    def shortest(self, matcher: Any, most: int) -> list[int] | None:
        """Token ids behind which the text is whole, [] if it is now, or None where no way of at most `most`
        tokens was found.
        """
        if matcher.is_accepting():
            return []
        found = self._search(matcher, most)
        return None if found is None else self._in_fewer(matcher, found)

    def _search(self, matcher: Any, most: int) -> list[int] | None:
        """A way, mostly of one byte a token."""
        for rank in self._ranks:
            found = self._follow(matcher, most, partial(self._first, rank=rank), SHORT_WAY)
            if found is not None:
                return found
        best: list[int] | None = None
        for seed in range(RANDOM_WAYS):
            rng = random.Random(seed)
            limit = min(most, RANDOM_LENGTH) if best is None else len(best) - 1
            best = self._follow(matcher, limit, partial(self._any, rng=rng), limit, rng) or best
        if best is None:  # it is far, or there is none: in small steps once more, and in large ones
            asked = min(LONG_WAY, LOOKED_AT // (self._size + 1))
            best = self._follow(matcher, most, partial(self._first, rank=self._ranks[0]), asked)
            best = best or self._follow(matcher, most, self._longest, asked)
        return best

    def _follow(
        self, matcher: Any, most: int, choose: _Way, asked: int, rng: random.Random | None = None
    ) -> list[int] | None:
        """One way from here: the ids up to a whole text, or None if it is longer than `most` or has over
        `asked` places to choose.

        rng  end at once where a token can.
        """
        here = matcher.deep_copy()
        way: list[int] = []
        while len(way) < most:
            steps = here.compute_ff_tokens()
            if not steps:
                bits = self._allowed(here)
                asked -= 1
                if not bits.any() or asked < 0:
                    return None
                last = None if rng is None else self._last_step(here, bits, rng)
                steps = [choose(bits) if last is None else last]
            if here.try_consume_tokens(steps) < len(steps):
                return None
            way += steps
            if here.is_accepting():
                return way
        return None

    def _in_fewer(self, matcher: Any, way: list[int]) -> list[int]:
        """The same text in the tokens that the tokenizer itself would take, if these are fewer and the
        matcher agrees.
        """
        try:
            own = self._tokenizer.encode(b"".join(map(self._tokenizer.token_bytes, way)).decode("utf-8"))
        except UnicodeDecodeError:  # the way begins inside a character
            return way
        if len(own) >= len(way):
            return way
        there = matcher.deep_copy()
        return own if there.try_consume_tokens(own) == len(own) and there.is_accepting() else way

    def _last_step(self, matcher: Any, bits: np.ndarray, rng: random.Random) -> int | None:
        """A token behind which the text is whole, if one of some of these is."""
        short = self._short(bits).tolist()
        for token in short if len(short) <= TRIED else rng.sample(short, TRIED):
            there = matcher.deep_copy()
            if there.consume_token(token) and there.is_accepting():
                return int(token)
        return None

    def _allowed(self, matcher: Any) -> np.ndarray:
        """Which ids may come next, [size] of 0 and 1; the end of all is left out."""
        words = np.zeros(self._size // 32 + 1, np.int32)
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        return np.unpackbits(words.view(np.uint8), bitorder="little")[: self._size]

    def _short(self, bits: np.ndarray) -> np.ndarray:
        """The ids of one byte among those, or all if there is none."""
        ids = np.flatnonzero(bits)
        short = ids[self._single[ids]]
        return short if len(short) else ids

    def _any(self, bits: np.ndarray, rng: random.Random) -> int:
        return int(rng.choice(self._short(bits).tolist()))

    def _longest(self, bits: np.ndarray) -> int:
        ids = np.flatnonzero(bits)
        return int(ids[np.argmax(self._lengths[ids])])

    def _first(self, bits: np.ndarray, rank: np.ndarray) -> int:
        """The id that comes first by `rank`; inside a free string the quotation mark."""
        if self._quote is not None and bits[self._quote] and bits[self._free].all():
            return self._quote
        ids = np.flatnonzero(bits)
        return int(ids[np.argmin(rank[ids])])
