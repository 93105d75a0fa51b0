"""Chooses a token from a vocabulary without sorting, in a few passes over the logits.

The cut of top-p or top-k is found by bisection over float32 bit patterns, which have the same order as the
numbers: each step sums all numbers above the middle, until few are left in the interval; the rest uses only
those. Conditions are factors of 0 or 1, maxima are of integers, and inner loops run from 0 over a slice,
because LLVM can vectorise these. Twin: tests/reference/sampling.py.
"""

import numpy as np

from rwkv_engine.kernels._jit import kernel, program
from rwkv_engine.kernels.activations import exp
from rwkv_engine.kernels.pointers import address_of, bits_of_float32, float32_of_bits, integers

#: the lowest temperature: its inverse is still a float32
_COLDEST = 1e-6
#: numbers summed in float32 before the sum is added to a float64
PIECE = 512
#: the search continues on a copy of the remaining numbers once they are fewer than this
FEW = 16384
#: shares (relative to the likeliest token) below this count as 0: `exp` ends at 1.6e-38
NOTHING = np.float32(1e-37)
_ONE = 0x3F800000  #: bits of 1.0, the largest share


@kernel
def highest(logits: np.ndarray) -> float:
    """The largest of logits [V] float32."""
    bits = integers(address_of(logits), logits.shape[0])
    best = np.int32(-(2**31))
    for i in range(logits.shape[0]):
        b = bits[i]
        best = max(
            best, b ^ ((b >> np.int32(31)) & np.int32(0x7FFFFFFF))
        )  # integers in the order of the numbers
    return float32_of_bits(np.uint32(best ^ ((best >> np.int32(31)) & np.int32(0x7FFFFFFF))))


@kernel
def shares(
    p: np.ndarray, logits: np.ndarray, top: float, sharpness: float, edge: float, sums: np.ndarray
) -> float:
    """p [V] <- e^((logits - top) * sharpness) where p was at least `edge`, else 0; returns the float64 sum.

    sums  <- the sum of each PIECE.
    """
    total = np.float64(0)
    for number in range(sums.shape[0]):
        q, x = p[number * PIECE : (number + 1) * PIECE], logits[number * PIECE : (number + 1) * PIECE]
        piece = np.float32(0)
        for i in range(q.shape[0]):
            share = exp((x[i] - top) * sharpness) * np.float32(q[i] >= edge)
            q[i] = share
            piece += share
        sums[number] = np.float64(piece)
        total += np.float64(piece)
    return total


@kernel
def reach(p: np.ndarray, edge: float) -> tuple[float, int]:
    """(sum, count) of the numbers in p [n] that are at least `edge`."""
    mass, count = np.float64(0), np.int64(0)
    for start in range(0, p.shape[0], PIECE):
        q = p[start : start + PIECE]
        piece, here = np.float32(0), np.int32(0)
        for i in range(q.shape[0]):
            piece += q[i] * np.float32(q[i] >= edge)
            here += np.int32(q[i] >= edge)
        mass += np.float64(piece)
        count += here
    return mass, count


@kernel
def between(out: np.ndarray, p: np.ndarray, low: float, high: float) -> int:
    """out [n] <- the numbers of p whose bits are in [low, high); returns n, at most out's length - 1.

    `out` may be the array that p is a part of: each number is read before its place is overwritten.
    """
    least, most, n = float32_of_bits(np.uint32(low)), float32_of_bits(np.uint32(high)), 0
    for i in range(p.shape[0]):
        number = p[i]
        out[min(n, out.shape[0] - 1)] = number
        n += np.int64(number >= least) & np.int64(number < most)
    return n


@kernel
def cut(p: np.ndarray, floor: float, mass: float, rank: int, few: np.ndarray) -> float:
    """The largest v such that the numbers of p [V] from v on sum to `mass` or are `rank` many; else `floor`.

    p is from 0 to 1, and the cut is known to be at least `floor` > 0. few [FEW] float32 is work space.
    """
    low, high = np.int64(bits_of_float32(floor)), np.int64(_ONE + 1)
    low_mass, low_count = reach(p, floor)
    if low_mass < mass and low_count < rank:
        return floor
    high_mass, high_count = np.float64(0), np.int64(0)
    while low_count - high_count >= FEW and high - low > 1:  # `between` needs one place more
        middle = (low + high) >> 1
        above, count = reach(p, float32_of_bits(np.uint32(middle)))
        if (above >= mass and count > 0) or count >= rank:
            low, low_count = middle, count
        else:
            high, high_mass, high_count = middle, above, count
    n = between(few, p, low, high) if high - low > 1 else 0
    while high - low > 1:
        middle = (low + high) >> 1
        above, count = reach(few[:n], float32_of_bits(np.uint32(middle)))
        if (high_mass + above >= mass and high_count + count > 0) or high_count + count >= rank:
            low = middle
        else:
            high, high_mass, high_count = middle, high_mass + above, high_count + count
        n = between(few, few[:n], low, high)
    return float32_of_bits(np.uint32(low))


@kernel
def drop_last(p: np.ndarray, edge: float, spare: float) -> None:
    """p [V] <- 0 for all numbers equal to `edge` but the first `spare`."""
    for i in range(p.shape[0]):
        if p[i] == edge:
            spare -= 1
            if spare < 0:
                p[i] = np.float32(0)


@program
def choose(
    logits: np.ndarray,
    top_p: float,
    top_k: int,
    min_p: float,
    temperature: float,
    u: float,
    p: np.ndarray,
    few: np.ndarray,
    sums: np.ndarray,
) -> int:
    """The token that a number u in [0, 1) selects from logits [V] float32; -1 if all probabilities are 0.

    top_p, top_k and min_p each remove tokens, based on the same probabilities; the rest is raised to the
    power 1 / temperature (above 0). Of equal tokens at the edge of top-k the first ones stay; 0 means no
    top-k, 1 no top-p. Work space: p [V] float32, few [FEW] float32, sums [ceil(V / PIECE)] float64.
    Cost: passes over V, two of them with an exponential; the cut takes one per bisection step until few are
    left.
    """
    top = highest(logits)
    if not np.isfinite(top):
        return np.int64(-1)
    p[:] = np.float32(1)
    total = shares(p, logits, top, np.float32(1), np.float32(0), sums)
    edge = NOTHING
    if top_p < 1.0:
        # all tokens below this have less than 1 - top_p together: the cut is above
        floor = max(edge, np.float32((1.0 - top_p) * total / logits.shape[0] * 0.999))
        edge = cut(p, floor, top_p * total, logits.shape[0] + 1, few)
    if 0 < top_k < logits.shape[0]:
        last = cut(p, edge, np.inf, top_k, few)
        _, above = reach(p, float32_of_bits(bits_of_float32(last) + np.uint32(1)))
        _, all_of_them = reach(p, last)
        if all_of_them > top_k:
            drop_last(p, last, top_k - above)
        edge = last
    edge = max(edge, np.float32(min_p))
    total = shares(p, logits, top, np.float32(1.0 / max(temperature, _COLDEST)), edge, sums)
    if not total > 0:  # a logit is NaN: no distribution
        return np.int64(-1)
    left, piece = u * total, 0
    while piece < sums.shape[0] - 1 and left >= sums[piece]:
        left -= sums[piece]
        piece += 1
    chosen = np.int64(-1)
    for i in range(piece * PIECE, min((piece + 1) * PIECE, p.shape[0])):
        if p[i] > np.float32(0):
            chosen = np.int64(i)
            left -= np.float64(p[i])
            if left < 0:
                return chosen
    # rounding left a remainder: take the last token with a probability
    while chosen < 0 and piece > 0:
        piece -= 1
        for i in range(piece * PIECE, (piece + 1) * PIECE):
            chosen = np.int64(i) if p[i] > np.float32(0) else chosen
    return chosen


@program
def log_share(logits: np.ndarray, token: int) -> float:
    """Natural logarithm of the probability that logits [V] float32 give to `token`."""
    top = highest(logits)
    total = np.float64(0)
    for start in range(0, logits.shape[0], PIECE):
        x = logits[start : start + PIECE]
        piece = np.float32(0)
        for i in range(x.shape[0]):
            piece += exp(x[i] - top)
        total += np.float64(piece)
    return np.float64(logits[token] - top) - np.log(total)
