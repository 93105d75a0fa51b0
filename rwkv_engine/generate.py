"""Writing: an iterator of steps, one for each token, over a state that moves with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from rwkv_engine.errors import OptionError
from rwkv_engine.sampling import Chooser, History, Sampling, log_probability
from rwkv_engine.state import State
from rwkv_engine.text import Tokenizer
from rwkv_engine.text.stream import Characters, Stops

StopReason = Literal["end", "length", "stop"]


class Feeds(Protocol):
    """What generation needs of a model."""

    tokenizer: Tokenizer

    def new_state(self) -> State:
        """A state that has seen nothing."""

    def feed(self, tokens: Sequence[int], state: State) -> np.ndarray:
        """Advance the state; the logits after the last token."""


@dataclass(frozen=True, slots=True)
class Step:
    """One token.

    token    its id.
    text     what may be shown now: possibly nothing (a character or a stop string is not complete), possibly more than the token's.
    logprob  natural log-probability that the model gave it, before penalties, filters and temperature.
    stop     None, or on the last step why it is the last: "end" (the model ended the document; `token` is the end token and
             was not fed), "length" (max_tokens), "stop" (a stop string; it is not shown, and the state is before it).
    """

    token: int
    text: str
    logprob: float
    stop: StopReason | None = None


def generate(
    model: Feeds,
    prompt: str | Sequence[int],
    *,
    max_tokens: int | None = 256,
    sampling: Sampling | None = None,
    state: State | None = None,
    stop: Sequence[str] = (),
) -> Iterator[Step]:
    """Continue `prompt` and yield a Step for each token.

    prompt      text or token ids. Empty with a new state: starts from the token that ends a document.
    max_tokens  None: until the model ends the document or a stop string occurs.
    sampling    None: Sampling().
    state       goes on from it, in place; None: a new one. When the iterator ends, or is closed, the state holds the prompt and all
                tokens that were yielded, without the end token and without what a stop string took back.
    stop        texts before which to stop, also within a token and over several.
    The texts of all steps together are the text that was written, up to the stop string. Nothing is fed before the first step is
    asked for. Raises OptionError, TokenError, and what `feed` raises.
    """
    if not isinstance(prompt, str) and not isinstance(prompt, Sequence):
        raise OptionError(f"prompt: got {type(prompt).__name__}, want text or a list of token ids")
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1):
        raise OptionError(f"max_tokens: got {max_tokens!r}, want a whole number of 1 or more, or None")
    ids = model.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    memory = model.new_state() if state is None else state
    if not ids and memory.position:
        raise OptionError("prompt: an empty one cannot go on from a state that has seen tokens; give at least one token")
    stops = Stops(stop)
    return _steps(model, ids or [model.tokenizer.end], max_tokens, sampling or Sampling(), memory, stops)


def _steps(model: Feeds, ids: list[int], limit: int | None, sampling: Sampling, state: State, stops: Stops) -> Iterator[Step]:
    history, characters = History(), Characters()
    tail = _Tail(model, state)
    logits = model.feed(ids, state)
    chooser = Chooser(sampling, len(logits))
    count = 0
    while True:
        token = chooser.pick(logits, history)
        logprob = log_probability(logits, token)
        count += 1
        if token == model.tokenizer.end:
            yield Step(token, characters.push(stops.finish()) + characters.finish(), logprob, "end")
            return
        data = model.tokenizer.token_bytes(token)
        history.add(token, model.tokenizer.decode([token]), sampling.decay)
        shown, hit = stops.push(data)
        text = characters.push(shown)
        if hit:
            tail.rewind(len(shown))
            yield Step(token, text + characters.finish(), logprob, "stop")
            return
        tail.add(token, len(data), len(shown), stops.held)
        if count == limit:
            model.feed([token], state)
            yield Step(token, text + characters.push(stops.finish()) + characters.finish(), logprob, "length")
            return
        try:
            yield Step(token, text, logprob)
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
