"""`Writer`: one text under way. It decides what is written and never calls a model.

Whoever has the model reads `feed` into `state`, hands over the logits that follow, and gets a Step:

    while not writer.over:
        step = writer.take(model.feed(writer.feed, writer.state))

A long prompt can be read in pieces: after each one, `read` says how many tokens of `feed` are done. When the
text is over, `feed` may still hold tokens: reading them brings the state to where the text ended.
"""

import copy
import time
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np

from rwkv_engine.errors import EngineError, OptionError
from rwkv_engine.numbers.shapes import ALIKE
from rwkv_engine.numbers.token_ids import token_ids
from rwkv_engine.state import State
from rwkv_engine.text import Tokenizer
from rwkv_engine.text.stream import Characters, Stops
from rwkv_engine.writing.choosing import Chooser, likeliest, log_probability
from rwkv_engine.writing.constraint import Guide
from rwkv_engine.writing.history import History
from rwkv_engine.writing.prefix_cache import Reading
from rwkv_engine.writing.step import Step, StopReason, Usage
from rwkv_engine.writing.tail import Tail
from rwkv_engine.writing.thoughts import Thoughts
from rwkv_engine.writing.wishes import Wishes


class Writer:
    """One text under way.

    feed   ids that the model has to read next.
    state  what it has read so far; moved on by whoever reads.
    over   whether the last step was taken.
    drafted, accepted  tokens of drafts, counted by whoever reads them, for `Usage`.
    """

    __slots__ = (
        "_characters", "_chooser", "_count", "_decoder", "_ends", "_first", "_guide", "_history", "_prompt", "_reading", "_start",
        "_stops", "_tail", "_thoughts", "_tokenizer", "_wishes", "accepted", "drafted", "feed", "over", "state",
    )  # fmt: skip

    def __init__(
        self,
        prompt: str | Iterable[int],
        wishes: Wishes,
        state: State,
        tokenizer: Tokenizer,
        format: str,
        vocab: int,
    ) -> None:
        """Begin a text behind `prompt`, text or ids; nothing is read yet.

        state   goes on from it. A prompt without tokens begins a document: only for a state that has read
                nothing.
        format  name of the model's weight format.    vocab  V.
        Raises  OptionError, TokenError.
        """
        self._wishes, self._tokenizer, self.state = wishes, tokenizer, state
        self.feed = _ids(prompt, state, tokenizer, vocab)
        self.over = False
        self.drafted = self.accepted = 0
        self._prompt, self._count = len(self.feed), 0
        self._stops, self._characters = Stops(wishes.stop), Characters()
        self._history = History(keep=bool(wishes.sampling.processors))
        self._chooser = Chooser(wishes.sampling, vocab)
        self._guide: Guide | None = None
        if wishes.constraint is not None:
            read = (
                prompt.encode("utf-8", "replace") if isinstance(prompt, str) else _bytes(self.feed, tokenizer)
            )
            self._guide = wishes.constraint.begin(tokenizer, read, wishes.ends)
        self._ends = tokenizer.ends.union(wishes.ends)
        self._decoder = tokenizer.decoder(self.feed, begun=self._guide is not None)
        self._tail = Tail()
        asked, most = wishes.asked, wishes.max_thoughts
        self._thoughts = None if asked is None else Thoughts(asked, most, tokenizer)
        self._reading: Reading | None = None
        self._start = self._first = 0.0
        if wishes.prefix_cache is not None:
            self._reading = wishes.prefix_cache.reading(self.feed, format)

    @property
    def in_prompt(self) -> bool:
        """Whether no token was chosen yet, so that `feed` may be long."""
        return self._count == 0

    @property
    def left(self) -> int | None:
        """How many tokens may still be written, of a thought's answer if there is one; None: no limit."""
        limit = self._wishes.max_tokens
        return None if limit is None else limit - self._count + self._thought

    @property
    def _thought(self) -> int:
        """How many tokens of the text are a thought."""
        return 0 if self._thoughts is None else self._thoughts.count

    def begin(self) -> None:
        """Take what the prefix cache has read before, and start the clock; before anything is read."""
        self._start = time.perf_counter()
        if self._reading is not None:
            self.feed = self.feed[self._reading.begin(self.state) :]

    def piece(self, most: int) -> list[int]:
        """The next ids of `feed` to read in one go, at most `most`: up to where the prefix cache keeps a
        state.

        No few tokens are left over before such a place: float formats add few tokens up in another order, and
        a kept state is to be the same, bit for bit, however the prompt was cut.
        """
        if self._reading is not None and self.in_prompt:
            gap = self._reading.next_place(self._prompt - len(self.feed))
            if gap > most >= gap - ALIKE:
                most = max(gap - ALIKE - 1, 1)
            most = min(gap, most)
        return self.feed[:most]

    def read(self, count: int) -> None:
        """The model has read the first `count` ids of `feed` into `state`."""
        self.feed = self.feed[count:]
        if self._reading is not None and not self._count:
            self._reading.passed(self._prompt - len(self.feed), self.state)

    def take(self, logits: np.ndarray) -> Step:
        """Choose the next token from the logits [V] that follow all of `feed`, which counts as read.

        Raises OptionError when no token may follow; the text cannot go on then.
        """
        self.feed = []
        token = self._choose(logits)
        others = likeliest(logits, self._wishes.alternatives) if self._wishes.alternatives else ()
        self._count += 1
        if token in self._ends:
            text, stop = self._rest("end")
            return self._step(token, text, log_probability(logits, token), stop, others)
        data = self._decoder.push(token)
        if self._thoughts is not None:
            self._thoughts.add(data)
        self._history.add(token, self._tokenizer.decode([token]), self._wishes.sampling.decay)
        shown, hit = self._stops.push(data)
        text = self._characters.push(shown)
        ending: StopReason | None = None
        if hit:
            self.feed, ending = self._tail.rewound(self.state, len(shown)), "stop"
            text += self._characters.finish()
        else:
            held = self._decoder.held
            self._tail.add(self.state, token, len(data), len(shown), self._stops.held, held)
            self.feed = [token]
            reason = self._ending()
            last, ending = self._rest(reason) if reason else ("", None)
            text += last
        return self._step(token, text, log_probability(logits, token), ending, others)

    def cancel(self) -> Step:
        """End the text here. What was held back is shown; of a prompt, no more is to be read."""
        self.feed = self.feed if self._count else []
        text, stop = self._rest("cancelled")
        return self._step(None, text, 0.0, stop)

    def fail(self, error: EngineError) -> Step:
        """End the text because of an error."""
        return self._step(None, self._rest("failed")[0], 0.0, "failed", error=error)

    def fork(self, seed: int | None = None) -> "Writer":
        """A copy that goes its own way from here, with a state of its own.

        seed  of its random numbers; None: those of this text, so that it writes the same, if its sampling has
              a seed, and others if not.
        """
        twin = copy.copy(self)
        if seed is None and self._wishes.sampling.seed is None:
            seed = int(np.random.default_rng().integers(1 << 62))
        twin.state, twin.feed = self.state.fork(), list(self.feed)
        twin._chooser = self._chooser.fork(seed)
        twin._history, twin._stops, twin._characters = (
            copy.deepcopy(self._history), copy.copy(self._stops), self._characters.fork()
        )  # fmt: skip
        twin._decoder = self._decoder.fork()
        twin._thoughts = None if self._thoughts is None else self._thoughts.fork()
        twin._tail, twin._guide = self._tail.fork(), None if self._guide is None else self._guide.fork()
        return twin

    def _choose(self, logits: np.ndarray) -> int:
        """The next token."""
        thoughts, guide = self._thoughts, self._guide
        whole = not self._decoder.held and not self._characters.waiting
        token = None if thoughts is None else thoughts.forced(whole)
        if token is None:
            allowed = None if guide is None else guide.allowed(len(logits))
            token = self._chooser.pick(logits, self._history, allowed)
        if guide is None:
            return token
        inside = thoughts is not None and thoughts.inside and self._count
        return guide.take(token, None if inside else self.left)

    def _ending(self) -> StopReason | None:
        """Why the text ends with the token just taken, if it does."""
        guide = self._guide
        inside = self._thoughts is not None and self._thoughts.inside
        if (inside or self.left != 0) and not (guide is not None and guide.over):
            return None
        return "length" if guide is None else "complete" if guide.whole else "cut"

    def _rest(self, reason: StopReason) -> tuple[str, StopReason]:
        """What was held back, and why the text ends: for `reason`, unless there is a stop string in what
        comes last.
        """
        shown, hit = self._stops.push(self._decoder.finish())
        if hit:
            self.feed, reason = self._tail.rewound(self.state, len(shown)), "stop"
        text = self._characters.push(shown + self._stops.finish()) + self._characters.finish()
        return text, reason

    def _step(
        self,
        token: int | None,
        text: str,
        logprob: float,
        stop: StopReason | None,
        others: tuple[tuple[int, float], ...] = (),
        error: EngineError | None = None,
    ) -> Step:
        self.over = stop is not None
        now = time.perf_counter()
        self._first = self._first or now
        cached = self._reading.start if self._reading is not None else 0
        first, all_of_it = self._first - self._start, now - self._start
        return Step(
            token,
            text,
            logprob,
            Usage(
                self._prompt,
                cached,
                self._count,
                first,
                all_of_it,
                self.drafted,
                self.accepted,
                self._thought,
            ),
            stop,
            others,
            error,
        )


def _ids(prompt: str | Iterable[int], state: State, tokenizer: Tokenizer, vocab: int) -> list[int]:
    """The prompt's ids, each in [0, V); for none, the token that begins a document."""
    if isinstance(prompt, (bytes, bytearray)) or not isinstance(prompt, Iterable):
        raise OptionError(f"prompt: got {type(prompt).__name__}, want text or token ids")
    given = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    ids: list[int] = token_ids(given, vocab, "prompt").tolist()
    if not ids and state.position:
        raise OptionError("prompt: it is empty, and the state has read tokens; give at least one token")
    if not ids and tokenizer.end is None:
        raise OptionError(
            "prompt: it is empty, and this vocabulary has no end token to begin with; give one token"
        )
    return ids or [cast(int, tokenizer.end)]


def _bytes(ids: Sequence[int], tokenizer: Tokenizer) -> bytes:
    return b"".join(map(tokenizer.token_bytes, ids))
