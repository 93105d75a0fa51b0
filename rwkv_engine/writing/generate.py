"""`generate`: one text on one model, an iterator of steps over a state that moves with them."""

import contextlib
import sys
from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

import numpy as np

from rwkv_engine.errors import EngineError
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.state import State
from rwkv_engine.text import Tokenizer
from rwkv_engine.writing.step import Step
from rwkv_engine.writing.writer import Wishes, Writer


class Feeds(Protocol):
    """What writing needs of a model."""

    tokenizer: Tokenizer
    format: str

    @property
    def vocab(self) -> int:
        """V."""

    def new_state(self) -> State:
        """A state that has seen nothing."""

    def feed(self, tokens: Sequence[int], state: State) -> np.ndarray:
        """Advance the state; the logits after the last token."""

    def skim(self, tokens: Sequence[int], state: State) -> None:
        """Advance the state without computing logits."""


class Cancel(Protocol):
    """What ends a text from outside: a `threading.Event`, or whatever else can say that it is set."""

    def is_set(self) -> bool:
        """Whether to end now."""


def generate(
    model: Feeds,
    prompt: str | Iterable[int],
    wishes: Wishes,
    state: State | None = None,
    cancel: Cancel | None = None,
) -> Generator[Step, None, None]:
    """Continue `prompt` and yield a Step for each token; see `Model.generate`.

    Nothing is read before the first step is asked for.
    """
    memory = model.new_state() if state is None else state
    writer = Writer(prompt, wishes, memory, model.tokenizer, model.format, model.vocab)
    return _begun(model, writer, cancel)


def _begun(model: Feeds, writer: Writer, cancel: Cancel | None) -> Generator[Step, None, None]:
    writer.begin()
    yield from write(model, writer, cancel)


def write(model: Feeds, writer: Writer, cancel: Cancel | None = None) -> Generator[Step, None, None]:
    """The steps of a text that has begun, up to its last; the state is then where the text is, also after
    `close`.
    """
    while not writer.over:
        logits = _read(model, writer, cancel)
        step = writer.cancel() if logits is None else writer.take(logits)
        if writer.over:
            _settle(model, writer)
        try:
            yield step
        except GeneratorExit:  # the reader has had enough: the state is to hold what was yielded
            if not sys.is_finalizing():
                with contextlib.suppress(EngineError):
                    _settle(model, writer)
            raise


def _read(model: Feeds, writer: Writer, cancel: Cancel | None) -> np.ndarray | None:
    """Read all of `feed`, in the pieces that one call would take; the logits after it, or None when
    cancelled.
    """
    while cancel is None or not cancel.is_set():
        piece = writer.piece(CHUNK)
        if len(piece) == len(writer.feed):
            return model.feed(piece, writer.state)
        model.skim(piece, writer.state)
        writer.read(len(piece))
    return None


def _settle(model: Feeds, writer: Writer) -> None:
    """Bring the state to where the text is."""
    feed, writer.feed = writer.feed, []
    if feed:
        model.skim(feed, writer.state)
