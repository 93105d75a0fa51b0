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
#: how many of the likeliest tokens are sorted before all of them are
SORTED_FIRST = 512


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


def _row(temperature: float, top_p: float, top_k: int, presence: float, frequency: float, decay: float) -> Sampling:
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

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[int, float] = {}

    def add(self, token: int, text: str, decay: float) -> None:
        """Fade all counts, then count `token`, which decodes to `text`."""
        for known in self.counts:
            self.counts[known] *= decay
        self.counts[token] = self.counts.get(token, 0.0) + (0.0 if text in UNCOUNTED else 1.0)


def adjust(logits: np.ndarray, sampling: Sampling, history: History) -> np.ndarray:
    """A copy of logits [V] float32 with bias, bans and penalties. Raises OptionError for an id outside the vocabulary."""
    out = np.array(logits, np.float32)
    for token, number in sampling.bias:
        out[_inside(token, len(out), "bias")] += number
    for token in sampling.banned:
        out[_inside(token, len(out), "banned")] = -np.inf
    if sampling.presence or sampling.frequency:
        for token, count in history.counts.items():
            out[token] -= sampling.presence + count * sampling.frequency
    return out


def _inside(token: int, size: int, option: str) -> int:
    if not 0 <= token < size:
        raise OptionError(f"{option}: token {token} is out of range; this model has ids 0 to {size - 1}")
    return token


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [V] float32."""
    p: np.ndarray = np.exp(logits - logits.max())
    return p / p.sum()


def top_p_cutoff(p: np.ndarray, top_p: float) -> float:
    """The probability of the last token that is needed to reach `top_p`, likeliest first; less likely ones go, equal ones stay."""
    if len(p) > SORTED_FIRST:
        likely = np.sort(np.partition(p, len(p) - SORTED_FIRST)[len(p) - SORTED_FIRST :])[::-1]
        sums = np.cumsum(likely)
        if sums[-1] >= top_p:
            return float(likely[np.argmax(sums >= top_p)])
    likely = np.sort(p)[::-1]
    sums = np.cumsum(likely)
    return float(likely[np.argmax(sums >= top_p)]) if sums[-1] >= top_p else 0.0


def filtered(p: np.ndarray, sampling: Sampling) -> np.ndarray:
    """A copy of probabilities [V] with those at 0 that top-p, top-k and min-p remove; not normalised."""
    out = p.copy()
    if sampling.top_p < 1:
        out[p < top_p_cutoff(p, sampling.top_p)] = 0
    if 0 < sampling.top_k < len(p):
        out[np.argpartition(p, len(p) - sampling.top_k)[: len(p) - sampling.top_k]] = 0
    if sampling.min_p > 0:
        out[p < sampling.min_p * p.max()] = 0
    return out


def pick(logits: np.ndarray, sampling: Sampling, history: History, rng: np.random.Generator) -> int:
    """The next token for logits [V] float32: likeliest for temperature 0, else drawn with `rng`. Changes none of its arguments but rng."""
    adjusted = adjust(logits, sampling, history)
    if not np.isfinite(adjusted.max()):
        raise OptionError("banned: every token is banned; leave one")
    if sampling.temperature == 0:
        return int(adjusted.argmax())
    p = filtered(softmax(adjusted), sampling)
    candidates = np.flatnonzero(p)
    weights = p[candidates].astype(np.float64)
    if sampling.temperature != 1:
        # relative to the likeliest, so that a low temperature does not underflow
        weights = (weights / weights.max()) ** (1 / sampling.temperature)
    sums = np.cumsum(weights)
    return int(candidates[np.searchsorted(sums, rng.random() * sums[-1], side="right").clip(0, len(candidates) - 1)])


def log_probability(logits: np.ndarray, token: int) -> float:
    """Natural logarithm of the probability that unchanged logits [V] give to `token`."""
    highest = logits.max()
    return float(logits[token] - highest - np.log(np.exp(logits - highest).sum(dtype=np.float64)))
