"""Drafts: tokens that are likely to come next.

The model reads several in one pass, and the text stays what it is without them.

A drafted token is accepted when it is the one that the Writer chooses at its place, with its own random
numbers, penalties and constraint. What follows a token that is not, is dropped: the state was kept behind
each token of the pass, and the one behind the last accepted token becomes the text's. Measured (0.4B, 8 bits,
two threads of a Zen 4): keeping a state takes 0.3 to 0.4 ms, reading a token again 2 to 3 ms.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np

from rwkv_engine.errors import OptionError, TokenError
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.state import State
from rwkv_engine.text import Tokenizer
from rwkv_engine.writing.pace import LONGEST, Costs, Pace
from rwkv_engine.writing.step import Step
from rwkv_engine.writing.writer import Writer

#: lengths of the runs of tokens by which what followed is found, longest first
RUNS = (8, 4, 2)
#: tokens of what stands before a text that n-grams, and a small model, look at
NGRAMS_SEE, MODEL_SEES = 20_000, 512


class Drafts(Protocol):
    """What drafts tokens of one text.

    first  for each kind of draft, the share of its tokens that is taken to be right before any was seen.
    """

    first: tuple[float, ...]

    def add(self, tokens: Sequence[int]) -> None:
        """The text goes on with `tokens`."""

    def kind(self) -> int:
        """Which kind the next draft is of, a place in `first`; -1: there is none."""

    def draft(self, count: int) -> list[int]:
        """At most `count` tokens that may come next."""

    def fork(self) -> "Drafts":
        """A copy that goes its own way."""


class NGrams:
    """Drafts from the text itself: what followed its last tokens before, by the longest of RUNS that was
    seen.

    A draft ends where what followed was not the same the last two times; behind the shortest run, it must
    have been the same twice.
    """

    __slots__ = ("_last", "_followed")
    first: tuple[float, ...] = (0.9, 0.8, 0.7)

    def __init__(self) -> None:
        self._last: tuple[int, ...] = ()  # tokens, as many as the longest run
        # of each length of run: what followed it the last time, and how often it had been that before, in
        # a row; -1: it had been another
        self._followed: tuple[dict[tuple[int, ...], tuple[int, int]], ...] = tuple({} for _ in RUNS)

    def add(self, tokens: Sequence[int]) -> None:
        """The text goes on with `tokens`."""
        last = self._last
        for token in tokens:
            for size, followed in zip(RUNS, self._followed, strict=True):
                if len(last) >= size:
                    run = last[-size:]
                    before = followed.get(run)
                    times = 0 if before is None else before[1] + 1 if before[0] == token else -1
                    followed[run] = token, times
            last = (*last[1 - RUNS[0] :], token)
        self._last = last

    def kind(self) -> int:
        """The number of the run by which the next token is found; -1: none."""
        return self._next(self._last)[0]

    def draft(self, count: int) -> list[int]:
        """What followed, token by token."""
        ids, last = list[int](), self._last
        while len(ids) < count:
            kind, token = self._next(last)
            if kind < 0:
                break
            ids.append(token)
            last = (*last[1 - RUNS[0] :], token)
        return ids

    def fork(self) -> "NGrams":
        """A copy that goes its own way."""
        twin = NGrams()
        twin._last, twin._followed = self._last, tuple(map(dict, self._followed))
        return twin

    def _next(self, last: tuple[int, ...]) -> tuple[int, int]:
        """(number of the run, token) of what is likely to follow; a number of -1: nothing is."""
        for number, (size, followed) in enumerate(zip(RUNS, self._followed, strict=True)):
            found = followed.get(last[-size:]) if len(last) >= size else None
            if found is not None:
                token, times = found
                return (number, token) if times >= (size == RUNS[-1]) else (-1, 0)
        return -1, 0


class Reads(Protocol):
    """What drafting needs of a small model."""

    tokenizer: Tokenizer

    @property
    def vocab(self) -> int:
        """V."""

    def new_state(self) -> State:
        """A state that has seen nothing."""

    def feed(self, tokens: Sequence[int], state: State) -> np.ndarray:
        """Advance the state; the logits after the last token."""

    def skim(self, tokens: Sequence[int], state: State) -> None:
        """Advance the state without computing logits."""


class ModelDrafts:
    """Drafts of a small model: the tokens that it finds likeliest. It has a state of its own."""

    __slots__ = ("_ahead", "_model", "_spare", "_state", "_unread")
    first: tuple[float, ...] = (0.7,)

    def __init__(self, model: Reads) -> None:
        self._model, self._state = model, model.new_state()
        self._unread: list[int] = []
        # drafted tokens that were read, and the states behind them
        self._ahead: list[tuple[int, State]] = []
        self._spare: list[State] = []

    def add(self, tokens: Sequence[int]) -> None:
        """The text goes on with `tokens`; where they are as drafted, they were read."""
        for token in tokens:
            if self._ahead and self._ahead[0][0] == token:
                _, state = self._ahead.pop(0)
                self._spare.append(self._state)
                self._state = state
            else:
                self._spare += [state for _, state in self._ahead]
                self._ahead = []
                self._unread.append(token)

    def kind(self) -> int:
        """The only kind, where there is something to read."""
        return 0 if self._unread else -1

    def draft(self, count: int) -> list[int]:
        """Its likeliest token, the likeliest one behind that ..."""
        unread, self._unread = self._unread, []
        for start in range(0, len(unread) - CHUNK, CHUNK):
            self._model.skim(unread[start : start + CHUNK], self._state)
        logits = self._model.feed(unread[(len(unread) - 1) // CHUNK * CHUNK :], self._state)
        ids, last = [int(logits.argmax())], self._state
        while len(ids) < count:
            state = self._spare.pop() if self._spare else self._model.new_state()
            state.copy_from(last)
            logits = self._model.feed(ids[-1:], state)
            self._ahead.append((ids[-1], state))
            ids.append(int(logits.argmax()))
            last = state
        return ids

    def fork(self) -> "ModelDrafts":
        """A copy that goes its own way."""
        twin = ModelDrafts(self._model)
        twin._state, twin._unread = self._state.fork(), list(self._unread)
        return twin


class Drafting:
    """The drafts of one text, and what was learned of them.

    kept  states for the tokens of a pass.
    """

    __slots__ = ("_home", "_kind", "drafts", "kept", "pace")

    def __init__(self, drafts: Drafts, pace: Pace) -> None:
        self.drafts, self.pace = drafts, pace
        self.kept: list[State] = []
        self._home = 0
        self._kind = -1

    def fork(self) -> "Drafting":
        """A copy for a copy of the text."""
        return Drafting(self.drafts.fork(), self.pace.fork())

    def propose(self, writer: Writer, beside: int = 1) -> list[int]:
        """Tokens to read behind `writer.feed` in a pass that has `beside` tokens without them; often none."""
        if len(writer.feed) != 1 or writer.in_prompt:
            return []
        most, kind = LONGEST - beside, self.drafts.kind()
        if writer.left is not None:
            most = min(most, writer.left - 1)
        count = self.pace.length(kind, most, beside) if kind >= 0 and most > 0 else 0
        if not count:
            return []
        start = time.perf_counter()
        ids = self.drafts.draft(count)
        self.pace.drafted(count, time.perf_counter() - start)
        while len(self.kept) < len(ids):
            self.kept.append(writer.state.fork())
        self._home, self._kind = self._home or writer.state.address, kind
        return ids

    def take(
        self,
        writer: Writer,
        ids: Sequence[int],
        rows: np.ndarray,
        take: Callable[[np.ndarray], Step],
        beside: int,
    ) -> Iterator[Step]:
        """The steps of a pass that read `ids` as drafts, whose logits are `rows`; the state is where the text
        is at each of them.
        """
        for number, row in enumerate(rows):
            if ids:  # the state is behind all drafts now, and the first of `kept` behind none
                writer.state.exchange(self.kept[number % len(ids)])
            step = take(row)
            if step.token is not None:
                self.drafts.add([step.token])
            again = not writer.over and number < len(ids) and writer.feed == [ids[number]]
            if ids and not again:
                whole = writer.over or number == len(ids)
                self.pace.saw(self._kind, len(ids), number, whole, beside)
            yield step
            if not again:
                return
            writer.accepted += 1

    def close(self, state: State) -> None:
        """The text is over: put its state back into the block that it had at first."""
        home = next((kept for kept in self.kept if kept.address == self._home), None)
        if home is not None:
            state.exchange(home)
            state.copy_from(home)


#: of each model, for as long as it lives
_COSTS: "WeakKeyDictionary[object, Costs]" = WeakKeyDictionary()


def drafting(draft: object, model: Reads, before: Sequence[int] = ()) -> Drafting | None:
    """What drafts the tokens of one text of `model`; None for no drafts.

    draft   None or "none"; "ngram" or "auto"; or a small model of the same vocabulary.
    before  what was read before the text, prompt included: n-grams look at its end, a small model reads its
            end.
    Raises  OptionError.
    """
    if draft is None or draft == "none":
        return None
    drafts: Drafts
    if draft in ("ngram", "auto"):
        drafts, sees = NGrams(), NGRAMS_SEE
    elif isinstance(draft, str) or not hasattr(draft, "skim"):
        raise OptionError.of("draft", draft, "ngram, auto, none or a model")
    else:
        if not _same_vocabulary(model, draft):  # type: ignore[arg-type]
            raise OptionError("draft: that model has another vocabulary; give a small one of the same family")
        drafts, sees = ModelDrafts(draft), MODEL_SEES  # type: ignore[arg-type]
    drafts.add(list(islice(before, max(0, len(before) - sees), None)))
    costs = _COSTS.setdefault(model, Costs())
    return Drafting(drafts, Pace(costs, drafts.first))


def _same_vocabulary(one: Reads, other: Reads) -> bool:
    """Whether ids stand for the same bytes in both, as far as their tokenizers know them."""
    a, b = one.tokenizer, other.tokenizer
    if one.vocab != other.vocab or a.size != b.size:
        return False
    return a is b or all(_bytes(a, token) == _bytes(b, token) for token in range(a.size))


def _bytes(tokenizer: Tokenizer, token: int) -> bytes | None:
    try:
        return tokenizer.token_bytes(token)
    except TokenError:
        return None
