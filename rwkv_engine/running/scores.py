"""What a model makes of a text that is already there: how likely each token is, and a vector for all of it."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from rwkv_engine.kernels.likelihood import costs_of
from rwkv_engine.numbers.shapes import CHUNK, ModelConfig
from rwkv_engine.state import State


class Reads(Protocol):
    """What reading needs of a model; see `Model` for each."""

    config: ModelConfig

    def new_state(self) -> State: ...
    def skim(self, tokens: Iterable[int], state: State) -> None: ...
    def feed(self, tokens: Iterable[int], state: State, every: bool = False) -> np.ndarray: ...
    def feed_hidden(
        self, tokens: Iterable[int], state: State, every: bool = False
    ) -> tuple[np.ndarray, np.ndarray]: ...


def token_logprobs(model: Reads, before: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """[T] float32: the natural log-probability of each of `ids` [T], given `before` [B >= 1] and those in
    front of it.

    The logits of at most CHUNK tokens are in memory at a time.
    """
    state = model.new_state()
    if len(before) > 1:
        model.skim(before[:-1], state)
    read, out = np.concatenate([before[-1:], ids[:-1]]), np.empty(len(ids), np.float32)
    for start in range(0, len(ids), CHUNK):
        logits, wanted = (
            model.feed(read[start : start + CHUNK], state, every=True),
            ids[start : start + CHUNK],
        )
        costs, best = np.empty(len(wanted)), np.empty(len(wanted), np.int64)
        costs_of(logits, np.ascontiguousarray(wanted), costs, best)
        out[start : start + CHUNK] = -costs
    return out


def mean_hidden(model: Reads, ids: np.ndarray) -> np.ndarray:
    """[C] float32: the mean over `ids` [T >= 1] of what the last layer gives behind the last norm, from a new
    state.
    """
    state, total = model.new_state(), np.zeros(model.config.width)
    for start in range(0, len(ids), CHUNK):
        _, hidden = model.feed_hidden(ids[start : start + CHUNK], state, every=True)
        total += hidden.sum(axis=0, dtype=np.float64)
    return (total / len(ids)).astype(np.float32)
