"""What is kept of a text while it is read: sums and counts whose size does not grow with it."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: tokens of a block, the step in which drift is told; blocks at most: then every two become one
BLOCK, BLOCKS = 1000, 1024
#: bins of the histogram of divergences for each doubling, so 1 % wide; the exponents of 2 that it spans
_FINE, _LOW, _HIGH = 64, -60, 8
#: columns of a block
TOKENS, BYTES, NATS, KL, SAME = range(5)


@dataclass(slots=True)
class Sums:
    """Sums over the tokens of one text so far.

    blocks   [number, 5] in order: tokens, bytes, nats, nats of divergence, tokens on which both models agree.
    every    tokens of a full block.
    bins     how many tokens have a divergence of this size; the first bin has all smaller ones.
    kl_max   nats.      seconds   of reading and scoring, the reference's own left out.
    """

    blocks: list[list[float]] = field(default_factory=list)
    every: int = BLOCK
    bins: np.ndarray = field(default_factory=lambda: np.zeros((_HIGH - _LOW) * _FINE, np.int64))
    kl_max: float = 0.0
    seconds: float = 0.0

    def add(self, sizes: np.ndarray, costs: np.ndarray, kl: np.ndarray | None, same: np.ndarray) -> None:
        """Tokens that follow: bytes, nats, divergences and agreements [T] each."""
        start = 0
        while start < len(costs):
            if not self.blocks or self.blocks[-1][TOKENS] >= self.every:
                self._begin()
            block = self.blocks[-1]
            stop = start + min(len(costs) - start, self.every - int(block[TOKENS]))
            block[TOKENS] += stop - start
            block[BYTES] += float(sizes[start:stop].sum())
            block[NATS] += float(costs[start:stop].sum())
            block[SAME] += float(same[start:stop].sum())
            if kl is not None:
                block[KL] += float(kl[start:stop].sum())
            start = stop
        if kl is not None:
            self.kl_max = max(self.kl_max, float(kl.max()))
            places = (np.log2(np.maximum(kl, 2.0**_LOW)) - _LOW) * _FINE
            np.add.at(self.bins, np.minimum(places.astype(np.int64), len(self.bins) - 1), 1)

    def _begin(self) -> None:
        if len(self.blocks) == BLOCKS:
            pairs = zip(self.blocks[::2], self.blocks[1::2], strict=True)
            self.blocks = [[a + b for a, b in zip(*pair, strict=True)] for pair in pairs]
            self.every *= 2
        self.blocks.append([0.0] * 5)

    def json(self) -> dict[str, Any]:
        """For `of_json`."""
        bins = {str(place): int(self.bins[place]) for place in np.flatnonzero(self.bins)}
        return {
            "blocks": self.blocks,
            "every": self.every,
            "bins": bins,
            "kl_max": self.kl_max,
            "seconds": self.seconds,
        }

    @classmethod
    def of_json(cls, kept: dict[str, Any]) -> "Sums":
        """What `json` gave."""
        sums = cls(kept["blocks"], kept["every"], kl_max=kept["kl_max"], seconds=kept["seconds"])
        for place, count in kept["bins"].items():
            sums.bins[int(place)] = count
        return sums


def totals(texts: list[Sums]) -> np.ndarray:
    """[5]: the columns of all blocks of all texts added up."""
    return np.sum([block for sums in texts for block in sums.blocks], axis=0)


def bits_per_byte(texts: list[Sums]) -> tuple[float, float | None]:
    """(bits a byte, its standard error over blocks, None for fewer than two blocks) of all texts together."""
    blocks = np.array([block for sums in texts for block in sums.blocks])
    size = float(blocks[:, BYTES].sum())
    bits = float(blocks[:, NATS].sum()) / math.log(2) / size
    if len(blocks) < 2:
        return bits, None
    off = blocks[:, NATS] / math.log(2) - bits * blocks[:, BYTES]
    return bits, math.sqrt(float((off**2).sum()) * len(blocks) / (len(blocks) - 1)) / size


def quantile(texts: list[Sums], share: float) -> float:
    """The divergence, within 1 %, that `share` of the tokens do not exceed."""
    bins = np.sum([sums.bins for sums in texts], axis=0)
    place = int(np.searchsorted(np.cumsum(bins), share * bins.sum()))
    return min(2.0 ** ((place + 0.5) / _FINE + _LOW), max(sums.kl_max for sums in texts))


def along(sums: Sums) -> list[dict[str, float | None]]:
    """Figures of a text block by block: the tokens at the block's end, bits a byte, mean divergence,
    agreement.
    """
    rows, end = list[dict[str, float | None]](), 0
    for tokens, size, nats, kl, same in sums.blocks:
        end += int(tokens)
        bits = nats / math.log(2) / size if size else None
        rows.append(
            {"tokens": end, "bits_per_byte": bits, "kl_mean": kl / tokens, "top1_agreement": same / tokens}
        )
    return rows
