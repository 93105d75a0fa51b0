"""Choosing the next token: the logits after penalties, and the draw. See `sampling`."""

import copy
import threading

import numpy as np

from rwkv_engine.errors import OptionError
from rwkv_engine.writing.history import History
from rwkv_engine.writing.sampling import Sampling

#: work arrays of a thread, for the vocabulary that it drew from last
_WORK = threading.local()


def adjust(
    logits: np.ndarray, sampling: Sampling, history: History, allowed: np.ndarray | None = None
) -> np.ndarray:
    """A copy of logits [V] float32 after processors, bias, bans and penalties; see `sampling` for the order.

    allowed  [V] bool: all other tokens are removed; None: every token may come.
    """
    out = np.array(logits, np.float32)
    for processor in sampling.processors:
        out = _processed(processor(out, history), len(logits))
    if allowed is not None:
        out[~allowed] = -np.inf
    for token, number in sampling.bias:
        out[token] += np.float32(number)
    if sampling.banned:
        out[list(sampling.banned)] = -np.inf
    if sampling.presence or sampling.frequency:
        out[history.ids] -= (sampling.presence + history.counts * sampling.frequency).astype(np.float32)
    return out


def _processed(logits: object, vocab: int) -> np.ndarray:
    """What a processor returned, as [V] float32 of its own. Raises OptionError."""
    out = np.array(logits, np.float32)
    if out.shape != (vocab,) or np.isnan(out).any() or np.isposinf(out).any():
        raise OptionError(
            f"processors: want {vocab} numbers, finite or minus infinity, got shape {list(out.shape)}"
        )
    return out


class Chooser:
    """Draws the tokens of one text: holds its random generator.

    Raises OptionError for ids outside the vocabulary.
    """

    __slots__ = ("_rng", "_sampling", "_vocab")

    def __init__(self, sampling: Sampling, vocab: int) -> None:
        self._sampling, self._vocab = sampling, vocab
        self._rng = np.random.default_rng(sampling.seed)
        for option, ids in (("bias", [token for token, _ in sampling.bias]), ("banned", sampling.banned)):
            for token in ids:
                if token >= vocab:
                    raise OptionError(
                        f"{option}: token {token} is out of range; this model has ids 0 to {vocab - 1}"
                    )

    def fork(self, seed: int | None) -> "Chooser":
        """A chooser for a copy of the text. It draws the same numbers, or new ones from `seed`."""
        twin = copy.copy(self)
        twin._rng = copy.deepcopy(self._rng) if seed is None else np.random.default_rng(seed)
        return twin

    def pick(self, logits: np.ndarray, history: History, allowed: np.ndarray | None = None) -> int:
        """The next token for logits [V] float32: the likeliest for temperature 0, else drawn.

        allowed  [V] bool: the tokens that may come; None: all.
        Raises   OptionError if no token is left, or a processor returned something else than V numbers.
        """
        s, adjusted = self._sampling, adjust(logits, self._sampling, history, allowed)
        if s.temperature == 0:
            token = int(adjusted.argmax())
            token = token if np.isfinite(adjusted[token]) else -1
        else:
            token = _draw(adjusted, s, self._rng.random())
        if token < 0:
            raise OptionError("banned: every token that may come next is banned; leave one")
        return token


def _draw(adjusted: np.ndarray, sampling: Sampling, u: float) -> int:
    """The token that a number u in [0, 1) picks from adjusted logits [V] float32; -1 if none is left."""
    from rwkv_engine.kernels.sample import FEW, PIECE, choose  # only texts that are drawn need the compiler

    vocab = len(adjusted)
    if getattr(_WORK, "vocab", None) != vocab:
        _WORK.vocab = vocab
        _WORK.arrays = (
            np.empty(vocab, np.float32),
            np.empty(FEW, np.float32),
            np.empty(-(-vocab // PIECE), np.float64),
        )
    s = sampling
    return int(
        choose(adjusted, s.top_p, min(s.top_k, len(adjusted)), s.min_p, s.temperature, u, *_WORK.arrays)
    )


def log_probability(logits: np.ndarray, token: int) -> float:
    """Natural logarithm of the probability that unchanged logits [V] float32 give to `token`."""
    from rwkv_engine.kernels.sample import log_share

    return float(log_share(logits, token))


def likeliest(logits: np.ndarray, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest tokens of unchanged logits [V], each with its natural log-probability, likeliest
    first.
    """
    count = min(count, len(logits))
    top = np.argpartition(logits, len(logits) - count)[len(logits) - count :]
    top = top[np.lexsort((top, -logits[top]))]
    highest = logits[top[0]]
    total = highest + np.log(np.exp(logits - highest).sum(dtype=np.float64))
    return tuple((int(token), float(logits[token] - total)) for token in top)
