"""`Batch`: many texts at once.

One pass over the weights serves them all, and each can join or leave at any step.

A text is the same, token for token, as when it is written alone with the same seed: with quantized weights
because the bits are the same. In a float format, and with the float head of a small vocabulary, a pass of
more than 8 tokens is added up in another order. Logits then differ in their last bits, and texts could part
where two tokens are as good as equally likely.
Prompts are read in pieces between the tokens of the others, so that nobody waits for somebody else's long
prompt.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rwkv_engine.errors import EngineError, OptionError
from rwkv_engine.numbers.shapes import ALIKE, CHUNK
from rwkv_engine.state import State
from rwkv_engine.writing.constraint import Constraint
from rwkv_engine.writing.drafts import Drafting, drafting
from rwkv_engine.writing.generate import Feeds
from rwkv_engine.writing.prefix_cache import PrefixCache
from rwkv_engine.writing.sampling import Sampling
from rwkv_engine.writing.step import Step
from rwkv_engine.writing.wishes import Wishes
from rwkv_engine.writing.writer import Writer


class FeedsMany(Feeds, Protocol):
    """What a batch needs of a model."""

    def own(self, state: State) -> None:
        """Raise StateError for a state of another model."""


@dataclass(slots=True)
class _Sequence:
    """One text of a batch.

    begun  whether its prompt has been looked up and its clock runs.
    owned  whether the state is the caller's, so that it must be where the text ends.
    last   the last step, while tokens are still to be read into such a state.
    drafts of the text; None: none are made.   ids  those that the next pass reads.
    """

    writer: Writer
    owned: bool
    begun: bool = False
    last: Step | None = None
    drafts: Drafting | None = None
    ids: Sequence[int] = ()


class Batch:
    """Texts under way on one model. One thread uses it.

    max_sequences  most texts at once.
    piece          most tokens of prompts that are read in a step: a text that is being written waits for no
                   more. None: so many that a step takes at most about four times as long as without.
    `len(batch)` is the number of texts under way.
    Raises OptionError for numbers that make no sense.
    """

    __slots__ = ("_model", "_numbers", "_sequences", "max_sequences", "piece")

    def __init__(self, model: FeedsMany, max_sequences: int = 32, piece: int | None = None) -> None:
        given = {"max_sequences": max_sequences, **({} if piece is None else {"piece": piece})}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError.of(name, value, "a whole number of 1 or more")
        self._model, self.max_sequences, self.piece = model, max_sequences, piece
        self._sequences: dict[int, _Sequence] = {}
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"Batch({len(self)} of at most {self.max_sequences} texts under way)"

    def __len__(self) -> int:
        return len(self._sequences)

    def add(
        self,
        prompt: str | Iterable[int] = "",
        *,
        max_tokens: int | None = 256,
        sampling: Sampling | None = None,
        state: State | None = None,
        stop: str | Iterable[str] | None = None,
        constraint: Constraint | None = None,
        prefix_cache: PrefixCache | None = None,
        alternatives: int = 0,
        draft: object = None,
        ends: Iterable[int] | None = None,
    ) -> int:
        """Begin a text with the next step; see `Model.generate` for the arguments.

        state    moved on in place; it is behind the text when its last step has come. None: a new one.
        ends     ids that end the text besides those of the tokenizer.
        Returns  the text's ticket, by which `step` tells whose a step is.
        Raises   OptionError (also when the batch is full), TokenError, StateError; nothing is added then.
        """
        self._need_room()
        if state is not None:
            self._model.own(state)
            if any(state is other.writer.state for other in self._sequences.values()):
                raise OptionError("state: another text of this batch goes on from it; fork() it")
        wishes = Wishes.of(max_tokens, sampling, stop, constraint, prefix_cache, alternatives, ends)
        model, own = self._model, self._model.new_state() if state is None else state
        writer = Writer(prompt, wishes, own, model.tokenizer, model.format, model.vocab)
        drafts = drafting(draft, model, writer.feed)
        return self._enter(_Sequence(writer, owned=state is not None, drafts=drafts))

    def fork(self, ticket: int, seed: int | None = None) -> int:
        """Begin a text that goes its own way from where another one is, without reading anything again.

        seed     of its random numbers; None: the copy of a text with a seed writes the same as that one, and
                 the copy of one without a seed draws other numbers.
        Returns  the new text's ticket. Raises OptionError (no such text, or the batch is full).
        """
        self._need_room()
        found = self._find(ticket)
        if found.last is not None:
            raise OptionError(f"ticket: text {ticket} is over")
        drafts = None if found.drafts is None else found.drafts.fork()
        return self._enter(_Sequence(found.writer.fork(seed), owned=False, begun=found.begun, drafts=drafts))

    def cancel(self, ticket: int) -> Step:
        """End a text now; its place is free.

        Returns its last step. Raises OptionError for a ticket of no text here.

        The state then holds all that was read, which may be one token less than was written.
        """
        return self._leave(ticket).writer.cancel()

    def state(self, ticket: int) -> State:
        """The state of a text under way: it moves on with each step, so fork() it. Raises OptionError."""
        return self._find(ticket).writer.state

    def step(self) -> list[tuple[int, Step]]:
        """One pass over the weights: each text whose prompt is read gets a token, the others read a piece.

        Returns  (ticket, step) for each token chosen: several, one after another, of a text whose drafts were
                 right. After a step with `stop` the text is no longer part of the batch. A text that cannot
                 go on ends with stop "failed"; the others do not notice.
        Raises   CheckpointError (logits that are not finite, a file that has gone).
        """
        for sequence in self._sequences.values():
            if not sequence.begun:
                sequence.writer.begin()
                sequence.begun = True
        plan = self._plan()
        if not plan:
            return []
        chosen = [
            ticket
            for ticket, ids in plan.items()
            if self._sequences[ticket].last is None and len(ids) == len(self._sequences[ticket].writer.feed)
        ]
        tokens = sum(map(len, plan.values()))
        rows = self._read(plan, chosen, self._draft(chosen, tokens))
        steps: list[tuple[int, Step] | None] = []
        for ticket in chosen:
            count = 1 + len(self._sequences[ticket].ids)
            steps += self._took(ticket, rows[:count], tokens)
            rows = rows[count:]
        settled = [
            (t, s.last) for t, s in self._sequences.items() if s.last is not None and not s.writer.feed
        ]
        for ticket, _ in settled:
            self._leave(ticket)
        return [found for found in steps if found is not None] + [(t, last) for t, last in settled if last]

    def _draft(self, chosen: Sequence[int], tokens: int) -> int:
        """Have drafts made for texts that choose a token in a pass of so many tokens; returns how many it has
        with them.
        """
        for ticket in chosen:
            sequence = self._sequences[ticket]
            if sequence.drafts is not None:
                sequence.ids = sequence.drafts.propose(sequence.writer, tokens)
                sequence.writer.drafted += len(sequence.ids)
                tokens += len(sequence.ids)
        return tokens

    def _read(self, plan: dict[int, list[int]], chosen: Sequence[int], tokens: int) -> np.ndarray:
        """Make the pass; the logits of `chosen`, with those behind their drafts. tokens: that it has with
        drafts.
        """
        texts = [self._sequences[ticket] for ticket in plan]
        pairs = [([*plan[t], *s.ids], s.writer.state) for t, s in zip(plan, texts, strict=True)]
        kept = [s.drafts.kept[: len(s.ids)] if s.drafts else () for s in texts]
        start = time.perf_counter()
        rows = self._model.feed_batch(pairs, [ticket in chosen for ticket in plan], kept)
        spent = time.perf_counter() - start
        for ticket, sequence in zip(plan, texts, strict=True):
            sequence.writer.read(len(plan[ticket]))
            if sequence.drafts is not None and tokens <= CHUNK:
                sequence.drafts.pace.costs.add(tokens, spent)
                sequence.drafts.pace.passed(spent)
        return rows

    def _took(self, ticket: int, rows: np.ndarray, beside: int) -> Iterator[tuple[int, Step] | None]:
        """The steps of a text whose `feed` was read; None for a last one that waits until its state is there."""
        sequence = self._sequences[ticket]

        def take(logits: np.ndarray) -> Step:
            try:
                return sequence.writer.take(logits)
            except EngineError as error:
                return sequence.writer.fail(error)

        ids, sequence.ids, drafts, writer = sequence.ids, (), sequence.drafts, sequence.writer
        for step in [take(rows[0])] if drafts is None else drafts.take(writer, ids, rows, take, beside):
            if step.stop is None:
                yield ticket, step
            elif sequence.owned and sequence.writer.feed:
                sequence.last = step
                yield None
            else:
                self._leave(ticket)
                yield ticket, step

    def _plan(self) -> dict[int, list[int]]:
        """What each text reads in the next pass: short feeds whole, long ones in equal shares of what room is
        left.
        """
        long = {ticket for ticket, s in self._sequences.items() if self._in_prompt(s)}
        plan = {ticket: s.writer.feed for ticket, s in self._sequences.items() if ticket not in long}
        busy = sum(map(len, plan.values()))
        room, waiting = max(self._room(busy), ALIKE + 1 - busy), len(long)  # see `Writer.piece`
        for ticket in sorted(long):
            if room == 0:
                break
            ids = self._sequences[ticket].writer.piece(max(2, room // waiting))
            plan[ticket] = ids
            room, waiting = max(0, room - len(ids)), waiting - 1
        return {ticket: ids for ticket, ids in plan.items() if ids}

    def _room(self, busy: int) -> int:
        """How many tokens of prompts a pass may read beside `busy` others."""
        # what fits into the pass, but never so little that a prompt hardly moves
        fits = max(CHUNK - busy, CHUNK // 8)
        if self.piece is not None:
            return self.piece if self.piece > CHUNK else min(self.piece, fits)
        # 16 more tokens make a pass of one nearly four times as long; the more there are, the less each adds.
        # Fewer would leave passes of so few tokens that floats are added up in another order: see `Writer.piece`
        return min(fits, max(2 * ALIKE, ALIKE + 4 * busy)) if busy else CHUNK

    def _in_prompt(self, sequence: _Sequence) -> bool:
        return sequence.last is None and sequence.writer.in_prompt

    def _need_room(self) -> None:
        if len(self._sequences) >= self.max_sequences:
            raise OptionError(
                f"batch: {len(self._sequences)} texts are under way, which is max_sequences; wait for one to end"
            )

    def _enter(self, sequence: _Sequence) -> int:
        ticket = next(self._numbers)
        self._sequences[ticket] = sequence
        return ticket

    def _find(self, ticket: int) -> _Sequence:
        if ticket not in self._sequences:
            raise OptionError(f"ticket: got {ticket!r}, which is no text under way")
        return self._sequences[ticket]

    def _leave(self, ticket: int) -> _Sequence:
        found = self._find(ticket)
        del self._sequences[ticket]
        if found.drafts is not None:
            found.drafts.close(found.writer.state)
        return found
