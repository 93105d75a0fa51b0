"""Choosing the next token, in the order of PyPI's `rwkv` 0.8.32 (PIPELINE.generate and PIPELINE.sample_logits).

For each token: 1. bias is added and banned tokens are removed; 2. tokens already written pay `presence + count * frequency`;
3. softmax; 4. top-p, top-k and min-p each look at these probabilities and remove tokens; 5. what is left is raised to the
power 1 / temperature and drawn from. After each token all counts fade by `decay`, then the new token's is raised by one,
or, for tokens that are white space or digits, by zero: such a token pays presence and no frequency.
Bias and min-p are not in that package; everything else gives its numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rwkv_engine.errors import OptionError

#: tokens that decode to a part of this do not count up
UNCOUNTED = " \t0123456789"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. Raises OptionError for numbers that cannot be meant.

    temperature  0 takes the likeliest token.        top_p      keep the likeliest tokens with this much probability; 1 keeps all.
    top_k        keep so many tokens; 0 keeps all.   min_p      drop tokens below this share of the likeliest one's; 0 drops none.
    presence     penalty for having been written.    frequency  penalty for each time it was.    decay  of the counts per token.
    bias         pairs (token id, number) added to logits.    banned  ids never chosen.
    seed         the same one gives the same tokens; None: another each time.
    """

    temperature: float = 1.0
    top_p: float = 0.85
    top_k: int = 0
    min_p: float = 0.0
    presence: float = 0.0
    frequency: float = 0.0
    decay: float = 0.996
    bias: tuple[tuple[int, float], ...] = ()
    banned: tuple[int, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("temperature", 0.0, 100.0),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("presence", -100.0, 100.0),
            ("frequency", -100.0, 100.0),
            ("decay", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise OptionError(f"{name}: got {value!r}, want a number from {low:g} to {high:g}")
        for name in ("top_k", "seed"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise OptionError(f"{name}: got {value!r}, want a whole number, 0 or more")
        if any(not math.isfinite(number) for _, number in self.bias):
            raise OptionError("bias: want finite numbers; ban a token instead of giving it minus infinity")

    @classmethod
    def preset(cls, name: str) -> "Sampling":
        """The sampling that the community calls `name`; OptionError, with the names there are, for any other."""
        if name not in PRESETS:
            raise OptionError(f"preset: got {name!r}, want one of {', '.join(PRESETS)}")
        return PRESETS[name]


def _row(
    temperature: float, top_p: float, top_k: int, presence: float, frequency: float, decay: float
) -> Sampling:
    return Sampling(temperature, top_p, top_k, 0.0, presence, frequency, decay)


#: by name; the first four are programs' defaults, the others the RWKV wiki's for tasks (which leave top-k and decay alone)
PRESETS: Mapping[str, Sampling] = {
    "pip": _row(1.0, 0.85, 0, 0.2, 0.2, 0.996),
    "g1": _row(1.0, 0.5, 100, 0.0, 0.0, 0.997),
    "runner": _row(1.0, 0.3, 0, 0.0, 1.0, 0.996),
    "ai00": _row(1.0, 0.5, 128, 0.3, 0.3, 0.99654),
    "qa": _row(0.8, 0.2, 0, 0.1, 0.2, 0.996),
    "summary": _row(1.0, 0.3, 0, 0.2, 0.3, 0.996),
    "translation": _row(0.9, 0.3, 0, 0.2, 0.3, 0.996),
    "code": _row(0.7, 0.1, 0, 0.1, 0.2, 0.996),
    "story": _row(1.3, 0.8, 0, 0.4, 0.5, 0.996),
    "greedy": _row(0.0, 1.0, 0, 0.0, 0.0, 0.996),
}


class History:
    """Which tokens were written, and how often, fading: what the penalties look at."""

    __slots__ = ("_counts", "_ids", "_place")

    def __init__(self) -> None:
        self._place: dict[int, int] = {}
        self._ids, self._counts = np.empty(64, np.int64), np.empty(64, np.float64)

    @property
    def ids(self) -> np.ndarray:
        """The different tokens that were written, [n] int64."""
        return self._ids[: len(self._place)]

    @property
    def counts(self) -> np.ndarray:
        """How often each of `ids` was written, [n] float64."""
        return self._counts[: len(self._place)]

    def add(self, token: int, text: str, decay: float) -> None:
        """Fade all counts, then count `token`, which decodes to `text`."""
        self.counts[:] *= decay
        place = self._place.get(token)
        if place is None:
            place = len(self._place)
            if place == len(self._ids):
                self._ids, self._counts = np.resize(self._ids, 2 * place), np.resize(self._counts, 2 * place)
            self._place[token], self._ids[place], self._counts[place] = place, token, 0.0
        self._counts[place] += 0.0 if text in UNCOUNTED else 1.0


def adjust(
    logits: np.ndarray, sampling: Sampling, history: History, allowed: np.ndarray | None = None
) -> np.ndarray:
    """A copy of logits [V] float32 with bias, bans and penalties. Raises OptionError for an id outside the vocabulary.

    allowed  [V] bool: all others are removed before anything else is done; None: every token may come.
    """
    out = np.array(logits, np.float32)
    if allowed is not None:
        out[~allowed] = -np.inf
    for token, number in sampling.bias:
        out[_inside(token, len(out), "bias")] += number
    for token in sampling.banned:
        out[_inside(token, len(out), "banned")] = -np.inf
    if sampling.presence or sampling.frequency:
        out[history.ids] -= (sampling.presence + history.counts * sampling.frequency).astype(np.float32)
    return out


def _inside(token: int, size: int, option: str) -> int:
    if not 0 <= token < size:
        raise OptionError(f"{option}: token {token} is out of range; this model has ids 0 to {size - 1}")
    return token


class Chooser:
    """Draws tokens, again and again: holds the work space for one vocabulary and the random generator of one text."""

    __slots__ = ("_choose", "_rng", "_sampling", "_work")

    def __init__(self, sampling: Sampling, vocab: int) -> None:
        from rwkv_engine.kernels.sample import (
            FEW,
            PIECE,
            choose,
        )  # here, so that who only reads a Sampling needs no compiler

        self._sampling, self._rng, self._choose = sampling, np.random.default_rng(sampling.seed), choose
        self._work = (
            np.empty(vocab, np.float32),
            np.empty(FEW, np.float32),
            np.empty(-(-vocab // PIECE), np.float64),
        )

    def pick(self, logits: np.ndarray, history: History, allowed: np.ndarray | None = None) -> int:
        """The next token for logits [V] float32: the likeliest for temperature 0, else drawn. Raises OptionError if all are banned.

        allowed  [V] bool: the tokens that may come; None: all.
        """
        s, adjusted = self._sampling, adjust(logits, self._sampling, history, allowed)
        if s.temperature == 0:
            token = int(adjusted.argmax())
            token = token if np.isfinite(adjusted[token]) else -1
        else:
            # one type for each number, whatever the caller wrote: another would compile the program again
            limits = float(s.top_p), int(s.top_k), float(s.min_p), float(s.temperature)
            token = int(self._choose(adjusted, *limits, self._rng.random(), *self._work))
        if token < 0:
            raise OptionError("banned: every token that may come next is banned; leave one")
        return token


def log_probability(logits: np.ndarray, token: int) -> float:
    """Natural logarithm of the probability that unchanged logits [V] float32 give to `token`."""
    from rwkv_engine.kernels.sample import log_share

    return float(log_share(logits, token))


def likeliest(logits: np.ndarray, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest tokens of unchanged logits [V], each with its natural log-probability, likeliest first."""
    count = min(count, len(logits))
    top = np.argpartition(logits, len(logits) - count)[len(logits) - count :]
    top = top[np.lexsort((top, -logits[top]))]
    highest = logits[top[0]]
    total = highest + np.log(np.exp(logits - highest).sum(dtype=np.float64))
    return tuple((int(token), float(logits[token] - total)) for token in top)
