"""`generate`: one text on one model, an iterator of steps over a state that moves with them."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from rwkv_engine.errors import EngineError
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.state import State
from rwkv_engine.text import Tokenizer
from rwkv_engine.writing.drafts import Drafting, drafting
from rwkv_engine.writing.step import Step
from rwkv_engine.writing.wishes import Wishes
from rwkv_engine.writing.writer import Writer


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

    def feed_batch(
        self,
        batch: Sequence[tuple[Sequence[int], State]],
        wanted: Sequence[bool] | None = None,
        kept: Sequence[Sequence[State]] | None = None,
    ) -> np.ndarray:
        """Advance each state over its tokens, keeping states on the way; the logits after the tokens that are
        wanted.
        """

    def skim(self, tokens: Sequence[int], state: State) -> None:
        """Advance the state without computing logits."""


class Cancel(Protocol):
    """What ends a text from outside: a `threading.Event`, or whatever else can say that it is set."""

    def is_set(self) -> bool:
        """Whether to end now."""


#: progress(tokens of the prompt that are read, how many it has)
Progress = Callable[[int, int], None]


def generate(
    model: Feeds,
    prompt: str | Iterable[int],
    wishes: Wishes,
    state: State | None = None,
    cancel: Cancel | None = None,
    draft: object = None,
    progress: Progress | None = None,
) -> Generator[Step, None, None]:
    """Continue `prompt` and yield a Step for each token; see `Model.generate`.

    Nothing is read before the first step is asked for.
    """
    memory = model.new_state() if state is None else state
    writer = Writer(prompt, wishes, memory, model.tokenizer, model.format, model.vocab)
    return _begun(model, writer, cancel, drafting(draft, model, writer.feed), progress)


def _begun(
    model: Feeds,
    writer: Writer,
    cancel: Cancel | None,
    drafts: Drafting | None,
    progress: Progress | None,
) -> Generator[Step, None, None]:
    total = len(writer.feed)
    writer.begin()
    while len(writer.feed) > CHUNK and not is_set(
        cancel
    ):  # all but the last piece: that one gives the logits
        _read_piece(model, writer, writer.piece(CHUNK))
        if progress is not None:
            progress(total - len(writer.feed), total)
    yield from write(model, writer, cancel, drafts)


def write(
    model: Feeds, writer: Writer, cancel: Cancel | None = None, drafts: Drafting | None = None
) -> Generator[Step, None, None]:
    """The steps of a text that has begun, up to its last; the state is then where the text is, also after
    `close`.

    drafts  of the text, which have seen its prompt; None: each pass gives one token.
    """
    try:
        while not writer.over:
            for step in (
                _pass(model, writer, cancel) if drafts is None else _long(model, writer, cancel, drafts)
            ):
                if writer.over:
                    _settle(model, writer)
                try:
                    yield step
                except GeneratorExit:  # the reader has had enough: the state is to hold what was yielded
                    if not sys.is_finalizing():
                        with contextlib.suppress(EngineError):
                            _settle(model, writer)
                    raise
    finally:
        if drafts is not None and not sys.is_finalizing():
            with contextlib.suppress(EngineError):
                drafts.close(writer.state)


def _pass(model: Feeds, writer: Writer, cancel: Cancel | None) -> Iterator[Step]:
    """The step of a pass."""
    logits = _read(model, writer, cancel)
    yield writer.cancel() if logits is None else writer.take(logits)


def _long(model: Feeds, writer: Writer, cancel: Cancel | None, drafts: Drafting) -> Iterator[Step]:
    """The steps of a pass that reads drafts too, if there are any."""
    ids = drafts.propose(writer)
    start, costs, count = time.perf_counter(), drafts.pace.costs, len(writer.feed) + len(ids)
    if ids and not is_set(cancel):
        writer.drafted += len(ids)
        tokens = [*writer.feed, *ids]
        rows = model.feed_batch([(tokens, writer.state)], None, [drafts.kept[: len(ids)]])
    else:
        ids, logits = [], _read(model, writer, cancel)
        if logits is None:
            yield writer.cancel()
            return
        rows = logits[None]
    if not writer.in_prompt:
        spent = time.perf_counter() - start
        costs.add(count, spent)
        drafts.pace.passed(spent)

    def take(row: np.ndarray) -> Step:
        return writer.cancel() if is_set(cancel) else writer.take(row)

    yield from drafts.take(writer, ids, rows, take if ids else writer.take, 1)


def is_set(cancel: Cancel | None) -> bool:
    """Whether the text is to end now."""
    return cancel is not None and cancel.is_set()


def _read(model: Feeds, writer: Writer, cancel: Cancel | None) -> np.ndarray | None:
    """Read all of `feed`, in the pieces that one call would take; the logits after it, or None when
    cancelled.
    """
    while not is_set(cancel):
        piece = writer.piece(CHUNK)
        if len(piece) == len(writer.feed):
            return model.feed(piece, writer.state)
        _read_piece(model, writer, piece)
    return None


def _read_piece(model: Feeds, writer: Writer, piece: list[int]) -> None:
    model.skim(piece, writer.state)
    writer.read(len(piece))


def _settle(model: Feeds, writer: Writer) -> None:
    """Bring the state to where the text is."""
    feed, writer.feed = writer.feed, []
    if feed:
        model.skim(feed, writer.state)
