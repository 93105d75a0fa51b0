"""Reading a text of any length with a carried state: what each token costs, and how far a reference model is
from it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random

import numpy as np

from rwkv_engine.errors import TokenError
from rwkv_engine.evaluation.keeping import Keeper, digest_of, key_of
from rwkv_engine.evaluation.pieces import DOCUMENTS, documents, token_pieces
from rwkv_engine.evaluation.sums import Sums
from rwkv_engine.kernels.likelihood import costs_of, divergences
from rwkv_engine.model import Model
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.state import State
from rwkv_engine.text import Tokenizer

Tell = Callable[[str], None]
#: the name of the text and of the tasks that come with the embedded model
EMBEDDED = "embedded"
#: seconds between two times that something is kept, and between two reports of progress
KEEP_SECONDS, TELL_SECONDS = 20.0, 0.2


@dataclass(frozen=True, slots=True)
class Text:
    """A text to read: its name, its ids piece by piece, and what tells it from any other."""

    name: str
    pieces: Callable[[Tokenizer], Iterator[list[int]]]
    identity: Callable[[], str]


def text_of(source: str | Path) -> Text:
    """The text in a file, of which a .jsonl has a document in each line: {"text": "..."}; "embedded": stories
    and conversations of the embedded model's grammar that it was not trained on.
    """
    if str(source) == EMBEDDED:
        return Text(EMBEDDED, partial(_ended, _embedded), lambda: EMBEDDED)
    path = Path(source)
    if path.suffix == DOCUMENTS:
        return Text(path.name, partial(_ended, partial(documents, path)), lambda: digest_of(path))
    return Text(path.name, partial(token_pieces, path), lambda: digest_of(path))


def _ended(texts: Callable[[], Iterator[str]], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The ids of each document, followed by the token that ends it."""
    end = [] if tokenizer.end is None else [tokenizer.end]
    return (tokenizer.encode(text) + end for text in texts())


def _embedded() -> Iterator[str]:
    """200 stories and 200 conversations, taking turns."""
    from rwkv_engine_weights.recipe.corpus import chat, prose

    for number in range(200):
        for pieces in (
            prose(Random(f"held out story 1 {number}")),
            chat(Random(f"held out talk 1 {number}"), 6, 2),
        ):
            yield "".join(text for text, _ in pieces)


def read_text(
    model: Model, reference: Model | None, text: Text, limit: int | None, keeper: Keeper, tell: Tell
) -> Sums:
    """Sums over a text, from an empty state, or from where an earlier run was stopped.

    The token that ends a document is read first, so that the text's first token has a cost too. A model
    without such a token begins with the text's own first token, which is then not counted.
    """
    models = [model] if reference is None else [model, reference]
    asked = [(one.fingerprint, one.format) for one in models]
    key = key_of("text", asked, text.identity(), limit) if keeper.keeps else ""
    states, sums, done = [one.new_state() for one in models], Sums(), 0
    kept = keeper.find(key)
    if kept is not None:
        found = [] if kept["over"] else keeper.states(key, kept["done"], models)
        if found is not None:
            states, sums, done = found, Sums.of_json(kept["sums"]), kept["done"]
        if kept["over"]:
            return sums
    sizes = _sizes(model)
    _warm_up(models)
    saved = told = time.monotonic()
    for number, (inputs, targets) in enumerate(passes(text, model.tokenizer, limit)):
        if number < done:
            continue
        _one_pass(models, states, inputs, targets, sizes, sums)
        done, now = number + 1, time.monotonic()
        if now - told > TELL_SECONDS:
            told = now
            tell(f"{text.name}: {done * CHUNK:,} tokens, {_speed(sums):,.0f} tokens/s")
        if keeper.keeps and now - saved > KEEP_SECONDS:
            saved = now
            keeper.keep(key, {"over": False, "done": done, "sums": sums.json()}, done, states)
    keeper.keep(key, {"over": True, "done": done, "sums": sums.json()})
    return sums


def _warm_up(models: list[Model]) -> None:
    """A pass that is not timed: it compiles, wakes the threads and brings the weights into memory."""
    ids = np.zeros(CHUNK, np.int64)
    logits = [one.feed(ids, one.new_state(), every=True) for one in models]
    costs_of(logits[0], ids, np.empty(CHUNK), np.empty(CHUNK, np.int64))


def _one_pass(
    models: list[Model],
    states: list[State],
    inputs: np.ndarray,
    targets: np.ndarray,
    sizes: np.ndarray,
    sums: Sums,
) -> None:
    start = time.perf_counter()
    logits = models[0].feed(inputs, states[0], every=True)
    costs, best = np.empty(len(targets)), np.empty(len(targets), np.int64)
    costs_of(logits, targets, costs, best)
    sums.seconds += time.perf_counter() - start
    kl, same = None, np.ones(len(targets), np.bool_)
    if len(models) > 1:
        theirs = models[1].feed(inputs, states[1], every=True)
        kl, likeliest = np.empty(len(targets)), np.empty_like(best)
        costs_of(theirs, targets, np.empty(len(targets)), likeliest)
        divergences(theirs, logits, kl)
        same = likeliest == best
    sums.add(sizes[targets], costs, kl, same)


def passes(text: Text, tokenizer: Tokenizer, limit: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(tokens that are read, tokens that come next), [at most CHUNK] int64 each; at most `limit` in all."""
    start = [] if tokenizer.end is None else [[tokenizer.end]]
    waiting, given = np.empty(0, np.int64), 0
    for piece in chain(start, text.pieces(tokenizer)):
        waiting = np.concatenate([waiting, np.array(piece, np.int64)])
        at = 0
        while len(waiting) - at > CHUNK:
            count = CHUNK if limit is None else min(CHUNK, limit - given)
            if count == 0:
                return
            yield waiting[at : at + count], waiting[at + 1 : at + count + 1]
            at, given = at + count, given + count
        waiting = waiting[at:]
    count = len(waiting) - 1 if limit is None else min(len(waiting) - 1, limit - given)
    if given == 0 and count < 1:
        raise TokenError(f"{text.name}: no token of it can be predicted; give a text with at least a word")
    if count > 0:
        yield waiting[:count], waiting[1 : count + 1]


def _sizes(model: Model) -> np.ndarray:
    """[V] int64: bytes of text that each id stands for."""

    def size(token: int) -> int:
        try:
            return len(model.tokenizer.token_bytes(token))
        except TokenError:
            return 0

    return np.array([size(token) for token in range(model.vocab)], np.int64)


def _speed(sums: Sums) -> float:
    return sum(block[0] for block in sums.blocks) / max(sums.seconds, 1e-9)
