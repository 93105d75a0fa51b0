"""How likely continuations are: many at once, and what several of them begin with is read once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rwkv_engine.kernels.likelihood import costs_of
from rwkv_engine.model import Model
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.state import State

#: bytes that the states under way may take
STATES = 256_000_000


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of one continuation: nats that it costs, and whether each of its tokens was the likeliest."""

    nats: float
    greedy: bool


def room(model: Model) -> int:
    """How many sequences are under way at once: a pass is full then, or their states take STATES bytes."""
    return max(4, min(CHUNK, STATES // max(1, model.new_state().nbytes)))


def pair(model: Model, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """(ids of a context, ids of what follows it), cut where the context ends in the tokens of both together.

    White space at the context's end belongs to the continuation. The token that ends a document stands in
    front.
    """
    behind = len(context) - len(context.rstrip())
    if behind:
        context, continuation = context[:-behind], context[-behind:] + continuation
    before = model.tokenizer.encode(context)
    both = model.tokenizer.encode(context + continuation)
    end = [] if model.tokenizer.end is None else [model.tokenizer.end]
    if not before and not end:
        return both[:1], both[1:]
    return end + before, both[len(before) :]


def rolling(model: Model, text: str) -> float:
    """Nats that a whole text costs, behind the token that ends a document; without such a token its own first
    is not counted.
    """
    context, ids = pair(model, "", text)
    return -float(model.score(ids, context).sum(dtype=np.float64)) if ids else 0.0


def likelihoods(
    model: Model,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    tell: Callable[[int], None] = lambda done: None,
) -> list[Likelihood]:
    """The likelihood of each continuation after its context; contexts that are the same are read once.

    pairs  (ids of the context, one or more; ids of the continuation).
    tell   is told how many are done.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, (context, _) in enumerate(pairs):
        groups.setdefault(tuple(context), []).append(number)
    found: dict[int, Likelihood] = {}
    most, window = room(model), dict[tuple[int, ...], list[int]]()
    for context, numbers in groups.items():
        window[context] = numbers
        if len(window) >= most or sum(map(len, window.values())) >= most:
            found.update(_window(model, pairs, window, most))
            window = {}
            tell(len(found))
    found.update(_window(model, pairs, window, most))
    return [found[number] for number in range(len(pairs))]


def _window(
    model: Model,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    window: dict[tuple[int, ...], list[int]],
    most: int,
) -> dict[int, Likelihood]:
    """Read the contexts of a window together, then their continuations, `most` at a time."""
    if not window:
        return {}
    states = [model.new_state() for _ in window]
    rows = model.feed_batch(list(zip(window, states, strict=True)))
    nats, greedy = dict[int, float](), dict[int, bool]()
    waiting: list[tuple[int, State, np.ndarray]] = []
    for (_, numbers), state, row in zip(window.items(), states, rows, strict=True):
        waiting += [(number, state, row) for number in numbers]
    for start in range(0, len(waiting), most):
        part = waiting[start : start + most]
        live = [number for number, _, _ in part if pairs[number][1]]
        own = {number: state.fork() for number, state, _ in part if len(pairs[number][1]) > 1}
        logits = np.stack([row for number, _, row in part if pairs[number][1]]) if live else rows[:0]
        nats.update((number, 0.0) for number, _, _ in part)
        greedy.update((number, True) for number, _, _ in part)
        step = 0
        while live:
            wanted = np.array([pairs[number][1][step] for number in live], np.int64)
            costs, best = np.empty(len(live)), np.empty(len(live), np.int64)
            costs_of(logits, wanted, costs, best)
            for i, number in enumerate(live):
                nats[number] += float(costs[i])
                greedy[number] &= bool(best[i] == wanted[i])
            step += 1
            live = [number for number in live if len(pairs[number][1]) > step]
            if live:
                logits = model.feed_batch([([pairs[n][1][step - 1]], own[n]) for n in live])
    return {number: Likelihood(nats[number], greedy[number]) for number in nats}
