"""Tokens per second of a loaded model: decoding one token after another, and reading prompts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rwkv_engine.model import Model

#: tokens fed before anything is timed: they compile, wake the threads and bring the weights into memory
WARM_UP = 80


@dataclass(frozen=True, slots=True)
class Trial:
    """One decode: seconds of each token."""

    latencies: list[float]

    @property
    def speed(self) -> float:
        """Tokens per second over the whole trial."""
        return len(self.latencies) / sum(self.latencies)


class Runner:
    """A model with a state of its own, fed random tokens: what they are makes no difference to the speed."""

    def __init__(self, model: Model) -> None:
        self.model, self.state, self._rng = model, model.new_state(), np.random.default_rng(0)
        model.feed(self._tokens(WARM_UP), self.state)
        for token in self._tokens(3):
            model.feed([token], self.state)

    def decode(self, tokens: int) -> Trial:
        """Feed so many tokens one by one."""
        latencies = []
        for token in self._tokens(tokens):
            start = time.perf_counter()
            self.model.feed([token], self.state)
            latencies.append(time.perf_counter() - start)
        return Trial(latencies)

    def prefill(self, tokens: int) -> float:
        """Seconds of one call with so many tokens."""
        prompt = self._tokens(tokens)
        start = time.perf_counter()
        self.model.feed(prompt, self.state)
        return time.perf_counter() - start

    def _tokens(self, count: int) -> Sequence[int]:
        return [int(n) for n in self._rng.integers(1, self.model.config.vocab, count)]
