"""Writing: an iterator of steps, one for each token, over a state that moves with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from rwkv_engine.errors import OptionError
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.state import State
from rwkv_engine.text import Tokenizer
from rwkv_engine.text.stream import Characters, Stops
from rwkv_engine.writing.constraint import Constraint, Guide
from rwkv_engine.writing.prefix_cache import PrefixCache
from rwkv_engine.writing.sampling import Chooser, History, Sampling, likeliest, log_probability

StopReason = Literal["end", "length", "stop", "complete", "cut", "cancelled"]


class Feeds(Protocol):
    """What generation needs of a model."""

    tokenizer: Tokenizer
    format: str

    def new_state(self) -> State:
        """A state that has seen nothing."""

    def feed(self, tokens: Sequence[int], state: State) -> np.ndarray:
        """Advance the state; the logits after the last token."""

    def skim(self, tokens: Sequence[int], state: State) -> None:
        """Advance the state without computing logits."""


class Cancel(Protocol):
    """What ends a generation from outside: a `threading.Event`, or whatever else can say that it is set."""

    def is_set(self) -> bool:
        """Whether to end now."""


@dataclass(frozen=True, slots=True)
class Step:
    """One token.

    token    its id.
    text     what may be shown now: possibly nothing (a character or a stop string is not complete), possibly more than the token's.
    logprob  natural log-probability that the model gave it, before penalties, filters and temperature.
    stop     None, or on the last step why it is the last: "end" (the model ended the document; `token` is the end token and
             was not fed), "length" (max_tokens), "stop" (a stop string; it is not shown, and the state is before it),
             "cancelled" (by `cancel`; `token` is the end token, which was neither chosen nor fed). With a constraint "end" and
             "complete" (nothing more can follow, or max_tokens) say that the text fits it, and "cut" (max_tokens came where no
             ending was found in time) that it does not.
    alternatives  pairs (token, logprob) of the likeliest ones, likeliest first, as many as were asked for.
    """

    token: int
    text: str
    logprob: float
    stop: StopReason | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


def generate(
    model: Feeds,
    prompt: str | Sequence[int],
    *,
    max_tokens: int | None = 256,
    sampling: Sampling | None = None,
    state: State | None = None,
    stop: Sequence[str] = (),
    constraint: Constraint | None = None,
    cancel: Cancel | None = None,
    prefix_cache: PrefixCache | None = None,
    alternatives: int = 0,
) -> Iterator[Step]:
    """Continue `prompt` and yield a Step for each token.

    prompt        text or token ids. Empty with a new state: starts from the token that ends a document.
    max_tokens    None: until the model ends the document or a stop string occurs.
    sampling      None: Sampling().
    state         goes on from it, in place; None: a new one. When the iterator ends, or is closed, the state holds the prompt and all
                  tokens that were yielded, without the end token and without what a stop string took back.
    stop          texts before which to stop, also within a token and over several; not together with a constraint.
    constraint    the text fits it when the last step's stop is "end" or "complete".
    cancel        looked at between tokens, and in a prompt every CHUNK tokens; the state then holds what was read and yielded so far.
    prefix_cache  takes a long prompt from, and adds it to, this folder of states.
    alternatives  how many of the likeliest tokens each step names.
    The texts of all steps together are the text that was written, up to the stop string. Nothing is fed before the first step is
    asked for. Raises OptionError, TokenError, and what `feed` raises.
    """
    if not isinstance(prompt, str) and not isinstance(prompt, Sequence):
        raise OptionError(f"prompt: got {type(prompt).__name__}, want text or a list of token ids")
    if max_tokens is not None and (
        isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1
    ):
        raise OptionError(f"max_tokens: got {max_tokens!r}, want a whole number of 1 or more, or None")
    ids = model.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    memory = model.new_state() if state is None else state
    if not ids and memory.position:
        raise OptionError(
            "prompt: an empty one cannot go on from a state that has seen tokens; give at least one token"
        )
    if isinstance(alternatives, bool) or not isinstance(alternatives, int) or alternatives < 0:
        raise OptionError(f"alternatives: got {alternatives!r}, want a whole number, 0 or more")
    if constraint is not None and stop:
        raise OptionError("stop: a constraint decides where the text ends; give one of the two")
    ids = ids or [model.tokenizer.end]
    guide = None
    if constraint is not None:
        read = (
            prompt.encode("utf-8", "replace")
            if isinstance(prompt, str)
            else b"".join(map(model.tokenizer.token_bytes, ids))
        )
        guide = constraint.begin(model.tokenizer, read)
    outside = _Outside(guide, cancel, prefix_cache, alternatives)
    return _steps(model, ids, max_tokens, sampling or Sampling(), memory, Stops(stop), outside)


@dataclass(frozen=True, slots=True)
class _Outside:
    """What may take a hand in a generation besides the model: see `generate`."""

    guide: Guide | None
    cancel: Cancel | None
    prefix_cache: PrefixCache | None
    alternatives: int

    def cancelled(self) -> bool:
        """Whether somebody asked for the end."""
        return self.cancel is not None and self.cancel.is_set()

    def read(self, model: Feeds, ids: list[int], state: State) -> np.ndarray | None:
        """Feed the prompt; the logits behind it, or None if it was cancelled on the way."""
        kept = None if self.prefix_cache is None else self.prefix_cache.begin(ids, state, model.format)
        last = (len(ids) - 1) // CHUNK * CHUNK
        # the same chunks as one call of feed makes, so that the numbers are the same
        for at in range(0 if kept is None else kept.start, last, CHUNK):
            if self.cancelled():
                return None
            model.skim(ids[at : at + CHUNK], state)
            if kept is not None:
                kept.passed(at + CHUNK, state)
        return None if self.cancelled() else model.feed(ids[last:], state)

    def choose(self, chooser: Chooser, logits: np.ndarray, history: History, left: int | None) -> int:
        """The next token; `left` may still be written."""
        if self.guide is None:
            return chooser.pick(logits, history)
        return self.guide.take(chooser.pick(logits, history, self.guide.allowed(len(logits))), left)


def _steps(
    model: Feeds,
    ids: list[int],
    limit: int | None,
    sampling: Sampling,
    state: State,
    stops: Stops,
    outside: _Outside,
) -> Iterator[Step]:
    history, characters, guide = History(), Characters(), outside.guide
    tail = _Tail(model, state)
    logits = outside.read(model, ids, state)
    chooser = Chooser(sampling, 0 if logits is None else len(logits))
    count = 0
    while True:
        if logits is None or outside.cancelled():
            yield Step(
                model.tokenizer.end, characters.push(stops.finish()) + characters.finish(), 0.0, "cancelled"
            )
            return
        token = outside.choose(chooser, logits, history, None if limit is None else limit - count)
        logprob, others = (
            log_probability(logits, token),
            likeliest(logits, outside.alternatives) if outside.alternatives else (),
        )
        count += 1
        if token == model.tokenizer.end:
            yield Step(token, characters.push(stops.finish()) + characters.finish(), logprob, "end", others)
            return
        data = model.tokenizer.token_bytes(token)
        history.add(token, model.tokenizer.decode([token]), sampling.decay)
        shown, hit = stops.push(data)
        text = characters.push(shown)
        if hit:
            tail.rewind(len(shown))
            yield Step(token, text + characters.finish(), logprob, "stop", others)
            return
        tail.add(token, len(data), len(shown), stops.held)
        if count == limit or (guide is not None and guide.over):
            why: StopReason = "length" if guide is None else "complete" if guide.whole else "cut"
            model.feed([token], state)
            yield Step(
                token, text + characters.push(stops.finish()) + characters.finish(), logprob, why, others
            )
            return
        try:
            yield Step(token, text, logprob, alternatives=others)
        except GeneratorExit:
            model.feed([token], state)
            raise
        logits = model.feed([token], state)


class _Tail:
    """The last tokens, as far as a stop string could still take them back, and the state before the first of them."""

    __slots__ = ("_before", "_model", "_pieces", "_shown", "_state")

    def __init__(self, model: Feeds, state: State) -> None:
        self._model, self._state = model, state
        self._drop()

    def _drop(self) -> None:
        self._before: State | None = None
        self._pieces: list[tuple[int, int]] = []
        self._shown = 0

    def add(self, token: int, size: int, shown: int, held: int) -> None:
        """A token of `size` bytes was chosen and not yet fed; `shown` bytes may now be shown, `held` are held back."""
        if held <= size:  # what is held back is this token's own: a tail starts here, or there is none
            self._drop()
            if held:
                self._before, self._pieces, self._shown = self._state.fork(), [(token, size)], size - held
            return
        self._pieces.append((token, size))
        self._shown += shown

    def rewind(self, shown: int) -> None:
        """The next token, not yet fed, completes a stop string that begins `shown` bytes behind what was shown before.

        Puts the state behind the last token that lies wholly before the stop string.
        """
        if self._before is None:  # it begins in that next token
            return
        self._state.copy_from(self._before)
        left, kept = self._shown + shown, []
        for token, size in self._pieces:
            left -= size
            if left < 0:
                break
            kept.append(token)
        if kept:
            self._model.feed(kept, self._state)
