"""`Conversation`: a talk with a model that can be taken back, asked again, edited and forked, at the cost of one turn.

After every turn the state is kept: it has constant size, so going back is a copy and never a second reading. What was thought
before an answer is not part of history: the turn is read once more without it, from where the two ways of writing it part.
"""

import math
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, cast

from rwkv_engine.errors import OptionError
from rwkv_engine.state import State
from rwkv_engine.text.chat import Template, Think
from rwkv_engine.text.thinking import Thinking
from rwkv_engine.writing.generate import Feeds, Step, StopReason, generate
from rwkv_engine.writing.sampling import Sampling

#: states of the last turns that are all kept; of older ones, a quarter as many for each doubling of the distance
RECENT = 24
#: tokens that are read at once before a reader may stop; a multiple of the model's longest pass, so that the numbers are the same
PIECE = 128


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    user, answer, thinking  texts.    system  what the model was told in front of this turn.    think  the mode.
    tokens                  all that history holds of this turn, from the end of the turn before.
    stop                    why the answer ended; None: it was interrupted.
    uid                     the turn's own name, also in forks.
    tries                   how often the question was asked before.
    """

    user: str
    answer: str
    thinking: str
    system: str | None
    think: Think
    tokens: tuple[int, ...]
    stop: StopReason | None
    uid: str
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Something that may be shown: `kind` says what of.

    "reading"   no text: `done` of `total` tokens of the prompt are read.
    "thinking"  more of the thought.    "answer"  more of the answer, possibly nothing.
    step        the token that it comes of, except for reading.
    """

    kind: Literal["reading", "thinking", "answer"]
    text: str = ""
    step: Step | None = None
    done: int = 0
    total: int = 0


class Shelf(Protocol):
    """Where states of turns lie that are not in memory."""

    def fetch(self, uid: str) -> State | None:
        """The state after the turn `uid`, or None: it will be made again by reading."""


class Conversation:
    """A talk. `say` answers; everything else only changes where it goes on from.

    model     the model; template  how the talk is written down.
    system    what the model is told in front of the next turn; None: nothing new.
    turns     what was said so far.
    shelf     where older states are found; None: in memory only.
    The states kept are never changed: each answer is written by a copy, so an answer that fails or is dropped leaves no trace.
    """

    __slots__ = ("_marks", "model", "shelf", "system", "template", "think", "turns")

    def __init__(
        self,
        model: Feeds,
        template: Template,
        *,
        system: str | None = None,
        think: Think = "off",
        turns: Sequence[Turn] = (),
        shelf: Shelf | None = None,
    ) -> None:
        self.model, self.template, self.shelf = model, template, shelf
        self.system = system
        self.turns = list(turns)
        # by turn: a state, and the tokens of that turn that it has yet to read
        self._marks: dict[str, tuple[State, list[int]]] = {}
        self.set_think(think)

    def set_think(self, think: Think) -> None:
        """Think in this mode from the next answer on. Raises OptionError for one that the template does not have."""
        if think not in self.template.thinks:
            raise OptionError(
                f"think: got {think!r}, the template {self.template.name} has {', '.join(self.template.thinks)}"
            )
        self.think: Think = think

    @property
    def tokens(self) -> int:
        """Tokens of the whole talk."""
        return sum(len(turn.tokens) for turn in self.turns)

    def say(
        self, text: str, sampling: Sampling | None = None, max_tokens: int | None = 512
    ) -> Iterator[Part]:
        """Answer `text`, part by part. The turn counts when the iterator ends, or is closed after the first token of the answer."""
        if not text.strip():
            raise OptionError("say: the text is empty")
        return self._answer(len(self.turns), text, sampling or Sampling(), max_tokens, 0)

    def retry(self, sampling: Sampling | None = None, max_tokens: int | None = 512) -> Iterator[Part]:
        """Answer the last question again; the old answer is replaced when the new one counts. A seed is moved on by one for each try."""
        last = self._last()
        return self._answer(
            len(self.turns) - 1, last.user, sampling or Sampling(), max_tokens, last.tries + 1
        )

    def edit(
        self, text: str, sampling: Sampling | None = None, max_tokens: int | None = 512
    ) -> Iterator[Part]:
        """Answer `text` in place of the last question."""
        self._last()
        if not text.strip():
            raise OptionError("edit: the text is empty")
        return self._answer(len(self.turns) - 1, text, sampling or Sampling(), max_tokens, 0)

    def undo(self, count: int = 1) -> list[Turn]:
        """Take back the last turns; returns them, first one first. Raises OptionError if there are fewer."""
        if count < 1 or count > len(self.turns):
            raise OptionError(
                f"undo: got {count}, the talk has {len(self.turns)} turn{'s' * (len(self.turns) != 1)}"
            )
        kept, gone = self.turns[:-count], self.turns[-count:]
        self.turns = kept
        told = next((turn.system for turn in gone if turn.system), None)
        self.system = self.system or told  # what was told with a turn that is gone is told with the next
        for turn in gone:
            self._marks.pop(turn.uid, None)
        return gone

    def fork(self) -> "Conversation":
        """Another talk that has gone the same way so far. Costs nothing: the states kept are shared, and never change."""
        twin = Conversation(
            self.model,
            self.template,
            system=self.system,
            think=self.think,
            turns=self.turns,
            shelf=self.shelf,
        )
        twin._marks = dict(self._marks)
        return twin

    def state(self) -> State:
        """A copy of the state after the last turn; what it has not read yet, or no longer, is read first."""
        state, rest = self._before(len(self.turns))
        if rest:
            self.model.feed(rest, state)
            self._keep(self.turns[-1].uid, state.fork())
        return state

    def kept(self) -> dict[str, State]:
        """The states in memory, by turn; not to be changed."""
        return {uid: state for uid, (state, rest) in self._marks.items() if not rest}

    def release(self, recent: int = 4) -> None:
        """Keep in memory only the states of so many turns: for a talk whose shelf holds the others."""
        last = {turn.uid for turn in self.turns[-recent:]}
        self._marks = {uid: mark for uid, mark in self._marks.items() if uid in last}

    def _last(self) -> Turn:
        if not self.turns:
            raise OptionError("nothing has been said yet")
        return self.turns[-1]

    def _answer(
        self, number: int, text: str, sampling: Sampling, limit: int | None, tries: int
    ) -> Iterator[Part]:
        """The answer to `text` as turn `number`, which takes the place of that turn and of what follows."""
        system = self.system or (self.turns[number].system if number < len(self.turns) else None)
        first = number == 0
        prompt = self.template.asks(text, self.think, system, first)
        if sampling.seed is not None and tries:
            sampling = replace(sampling, seed=sampling.seed + tries)
        ids = self.model.tokenizer.encode(prompt)
        state, behind = self._before(number)
        fork_at = self._parting(ids, text, system, first)
        yield from self._read(behind, state)
        if behind and number:
            self._keep(self.turns[number - 1].uid, state.fork())
        yield from self._read(ids[:fork_at], state)
        asked = state.fork()
        rest = ids[fork_at:]
        early = (len(rest) - 1) // PIECE * PIECE
        yield from self._read(rest[:early], state)
        writing = _Writing(Thinking(prompt), state.position + len(rest) - early)
        steps = cast(
            Generator[Step],
            generate(
                self.model,
                rest[early:],
                max_tokens=limit,
                sampling=sampling,
                state=state,
                stop=self.template.stops,
            ),
        )

        def settle() -> None:
            turn = Turn(
                text,
                *writing.texts(),
                system,
                self.think,
                (*ids, *writing.fed(state)),
                writing.stop,
                uuid.uuid4().hex,
                tries,
            )
            self._settle(number, turn, state, (asked, ids[:fork_at]) if writing.split.tagged else None)

        try:
            for step in steps:
                yield from writing.parts(step)
        except GeneratorExit:  # the reader has had enough: what was said counts
            steps.close()  # the state then holds all tokens that were yielded
            if writing.ids:
                settle()
            raise
        settle()

    def _settle(
        self, number: int, turn: Turn, state: State, thoughtless: tuple[State, list[int]] | None
    ) -> None:
        """Make `turn` the last one, with the state after it.

        thoughtless  to take a thought out: a state within the turn, and the turn's tokens up to there. What is to be read from
                     there is left for later, so that the turn can be put away first.
        """
        rest: list[int] = []
        if thoughtless:
            asked, common = thoughtless
            ids = self.model.tokenizer.encode(
                self.template.keeps(turn.user, turn.answer, turn.system, number == 0)
            )
            if ids[: len(common)] == common:
                state, rest = asked, ids[len(common) :]
            else:
                state, rest = self._before(number)
                rest += ids
            turn = replace(turn, tokens=tuple(ids))
        self.turns[number:] = [turn]
        self.system = None
        self._keep(turn.uid, state, rest)

    def _parting(self, ids: list[int], text: str, system: str | None, first: bool) -> int:
        """How many tokens of the prompt stay in history whatever the answer is: all, or up to where thinking is asked for."""
        if self.think == "off":
            return 0
        plain = self.model.tokenizer.encode(self.template.keeps(text, "", system, first))
        same = next(
            (n for n, (a, b) in enumerate(zip(ids, plain, strict=False)) if a != b), min(len(ids), len(plain))
        )
        return min(same, len(ids) - 1)

    def _before(self, number: int) -> tuple[State, list[int]]:
        """A state of one's own at or before turn `number`, and the tokens from there to that turn."""
        behind: list[int] = []
        for turn in reversed(self.turns[:number]):
            if turn.uid in self._marks:
                state, rest = self._marks[turn.uid]
                return state.fork(), rest + behind
            stored = self.shelf.fetch(turn.uid) if self.shelf else None
            if stored is not None:
                return stored, behind
            behind = [*turn.tokens, *behind]
        return self.model.new_state(), behind

    def _read(self, ids: Sequence[int], state: State) -> Iterator[Part]:
        """Feed tokens, telling after each piece how far it is."""
        for start in range(0, len(ids), PIECE):
            self.model.feed(ids[start : start + PIECE], state)
            yield Part("reading", done=min(start + PIECE, len(ids)), total=len(ids))

    def _keep(self, uid: str, state: State, rest: Sequence[int] = ()) -> None:
        self._marks[uid] = state, list(rest)
        count = len(self.turns)
        wanted = {turn.uid for n, turn in enumerate(self.turns) if worth_keeping(n, count)}
        self._marks = {uid: mark for uid, mark in self._marks.items() if uid in wanted}


class _Writing:
    """An answer as it is written: its tokens, and its texts on both sides of the thought."""

    __slots__ = ("_before", "_said", "_thought", "ids", "split", "stop")

    def __init__(self, split: Thinking, before: int) -> None:
        self.split, self._before = split, before
        self._thought: list[str] = []
        self._said: list[str] = []
        self.ids: list[int] = []
        self.stop: StopReason | None = None

    def parts(self, step: Step) -> Iterator[Part]:
        """What this step shows: at least one part."""
        self.ids.append(step.token)
        self.stop = step.stop
        thought, said = self.split.push(step.text)
        if step.stop:
            more = self.split.finish()
            thought, said = thought + more[0], said + more[1]
        self._thought.append(thought)
        self._said.append(said)
        if thought or (self.split.inside and not said):
            yield Part("thinking", thought, step)
        if said or not (thought or self.split.inside):
            yield Part("answer", said, step)

    def fed(self, state: State) -> tuple[int, ...]:
        """The tokens that are in the state: without an end token, and without what a stop string took back."""
        return tuple(self.ids[: state.position - self._before])

    def texts(self) -> tuple[str, str]:
        """(answer, thought), whole, without white space around them."""
        if self.stop is None:
            thought, said = self.split.finish()
            self._thought.append(thought)
            self._said.append(said)
        return "".join(self._said).strip(), "".join(self._thought).strip()


def worth_keeping(number: int, count: int) -> bool:
    """Whether the state after turn `number` of `count` is kept: of the last RECENT, and of every sixth, twelfth ... further back.

    That is RECENT / 4 for each doubling of the distance. A turn that is dropped is not wanted again as the talk goes on.
    """
    distance = count - number
    return distance <= RECENT or (number + 1) % (RECENT // 4 << int(math.log2(distance / RECENT))) == 0


def reread(turns: Sequence[Turn], model: Feeds, template: Template) -> list[Turn]:
    """The same talk for another model or template: the texts stay, tokens and names are new, and no state belongs to it."""
    return [
        replace(
            turn,
            tokens=tuple(
                model.tokenizer.encode(template.keeps(turn.user, turn.answer, turn.system, number == 0))
            ),
            uid=uuid.uuid4().hex,
        )
        for number, turn in enumerate(turns)
    ]
