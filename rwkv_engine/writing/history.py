"""`History`: what was written so far, for penalties and processors."""

import numpy as np

#: tokens that decode to a part of this are not counted
UNCOUNTED = " \t0123456789"


class History:
    """What was written: how often each token occurred, fading; and, for processors, `tokens` in order.

    keep  whether `tokens` is filled: without processors nothing grows with the text.
    """

    __slots__ = ("_counts", "_ids", "_keep", "_place", "tokens")

    def __init__(self, keep: bool = False) -> None:
        self._keep = keep
        self.tokens: list[int] = []
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
        if self._keep:
            self.tokens.append(token)
        self.counts[:] *= decay
        place = self._place.get(token)
        if place is None:
            place = len(self._place)
            if place == len(self._ids):
                self._ids, self._counts = np.resize(self._ids, 2 * place), np.resize(self._counts, 2 * place)
            self._place[token], self._ids[place], self._counts[place] = place, token, 0.0
        self._counts[place] += 0.0 if text in UNCOUNTED else 1.0
