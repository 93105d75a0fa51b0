"""`Conversation`: a conversation with a model that can be undone, retried, edited and forked.

The state after every turn is kept. It has constant size, so going back is a copy and needs no reading.
Thinking is not part of the history: a turn with thinking is read again without it, from where the two texts
differ.
"""

import copy
import uuid
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from rwkv_engine.chat.answer import Answer, Part, Turn, require_text
from rwkv_engine.chat.history import Shelf, parting, worth_keeping
from rwkv_engine.errors import EngineError, OptionError
from rwkv_engine.state import State
from rwkv_engine.text.chat import Template, Think
from rwkv_engine.text.markers import ids_asked, ids_kept, turn_ends
from rwkv_engine.text.templates import find_template
from rwkv_engine.text.thinking import Thinking
from rwkv_engine.writing.constraint import Constraint
from rwkv_engine.writing.drafts import drafting
from rwkv_engine.writing.generate import Cancel, Feeds, is_set, write
from rwkv_engine.writing.prefix_cache import PrefixCache
from rwkv_engine.writing.sampling import Sampling
from rwkv_engine.writing.wishes import Wishes
from rwkv_engine.writing.writer import Writer

Parts = Generator[Part, None, None]

#: tokens that are read at once; a multiple of the model's longest pass, so that the numbers are the same
PIECE = 128


class ChatModel(Feeds, Protocol):
    """A model with a chat template."""

    @property
    def template(self) -> Template: ...


class Conversation:
    """A conversation. `say` answers; everything else only changes where it continues.

    model     the model.
    template  the chat template, its name, or a Jinja file; None: the model's own.
    system    the system prompt for the next turn; None: nothing new.
    turns     the turns so far; None: none.
    shelf     where older states are stored; None: in memory only.
    draft     drafts the tokens of answers, as for `Model.generate`; n-grams see the earlier turns.
    Each answer is written with a copy of the state, so an answer that fails or is dropped leaves no trace.
    """

    __slots__ = ("_marks", "draft", "model", "shelf", "system", "template", "think", "turns")

    def __init__(
        self,
        model: ChatModel,
        template: Template | str | None = None,
        *,
        system: str | None = None,
        think: Think = "off",
        turns: Sequence[Turn] | None = None,
        shelf: Shelf | None = None,
        draft: object = None,
    ) -> None:
        self.model, self.shelf, self.draft = model, shelf, draft
        if isinstance(template, str):
            template = find_template(model.vocab, None, template)
        self.template: Template = model.template if template is None else template
        self.system = system
        self.turns = list(turns or ())
        # by turn: a state, and the tokens of that turn that it has yet to read
        self._marks: dict[str, tuple[State, list[int]]] = {}
        self.set_think(think)

    def __repr__(self) -> str:
        return f"Conversation({len(self.turns)} turns, {self.tokens} tokens, template {self.template.name!r})"

    def set_think(self, think: Think) -> None:
        """Use this mode of thinking from now on. Raises OptionError if the template lacks it."""
        if think not in self.template.thinks:
            raise OptionError(
                f"think: got {think!r}, the template {self.template.name} has {', '.join(self.template.thinks)}"
            )
        self.think: Think = think

    @property
    def tokens(self) -> int:
        """Tokens of the whole conversation."""
        return sum(len(turn.tokens) for turn in self.turns)

    def say(
        self,
        text: str,
        sampling: Sampling | None = None,
        max_tokens: int | None = 512,
        *,
        constraint: Constraint | None = None,
        cancel: Cancel | None = None,
        prefix_cache: PrefixCache | None = None,
        alternatives: int = 0,
        max_thoughts: int | None = 1024,
    ) -> Parts:
        """Answer `text`, part by part; for the other arguments see `Model.generate`.

        max_tokens    the most tokens of the answer; a thought in front of it does not count.
        max_thoughts  the most tokens of that: it is then closed, and the answer begins. None: no limit.
        The turn counts when the iterator ends, or is closed after the first token of the answer.
        Raises OptionError, and what reading raises.
        """
        require_text("say", text)
        wishes = self._wishes(sampling, max_tokens, constraint, prefix_cache, alternatives, max_thoughts)
        return self._answer(len(self.turns), text, wishes, cancel)

    def retry(
        self,
        sampling: Sampling | None = None,
        max_tokens: int | None = 512,
        *,
        constraint: Constraint | None = None,
        cancel: Cancel | None = None,
        prefix_cache: PrefixCache | None = None,
        alternatives: int = 0,
        max_thoughts: int | None = 1024,
    ) -> Parts:
        """Answer the last question again; arguments as for `say`.

        The old answer is replaced when the new one counts. A seed is moved on by one for each try.
        """
        last, sampling = self._last(), sampling or Sampling()
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + last.tries + 1)
        wishes = self._wishes(sampling, max_tokens, constraint, prefix_cache, alternatives, max_thoughts)
        return self._answer(len(self.turns) - 1, last.user, wishes, cancel, last.tries + 1)

    def edit(
        self,
        text: str,
        sampling: Sampling | None = None,
        max_tokens: int | None = 512,
        *,
        constraint: Constraint | None = None,
        cancel: Cancel | None = None,
        prefix_cache: PrefixCache | None = None,
        alternatives: int = 0,
        max_thoughts: int | None = 1024,
    ) -> Parts:
        """Answer `text` in place of the last question; arguments as for `say`."""
        self._last()
        require_text("edit", text)
        wishes = self._wishes(sampling, max_tokens, constraint, prefix_cache, alternatives, max_thoughts)
        return self._answer(len(self.turns) - 1, text, wishes, cancel)

    def _wishes(
        self,
        sampling: Sampling | None,
        max_tokens: int | None,
        constraint: Constraint | None,
        prefix_cache: PrefixCache | None,
        alternatives: int,
        max_thoughts: int | None,
    ) -> Wishes:
        ends, stops = turn_ends(self.model.tokenizer, self.template), self.template.stops
        return Wishes.of(
            max_tokens, sampling, stops, constraint, prefix_cache, alternatives, ends, max_thoughts
        )

    def undo(self, count: int = 1) -> list[Turn]:
        """Take back the last turns and return them, oldest first. Raises OptionError if there are fewer."""
        if count < 1 or count > len(self.turns):
            raise OptionError(
                f"undo: got {count}, the conversation has {len(self.turns)} turn{'s' * (len(self.turns) != 1)}"
            )
        self.turns, gone = self.turns[:-count], self.turns[-count:]
        self.system = self.system or next((turn.system for turn in gone if turn.system), None)
        for turn in gone:
            self._marks.pop(turn.uid, None)
        return gone

    def fork(self) -> "Conversation":
        """A second conversation with the same turns. It costs nothing: states are shared and never change."""
        twin = copy.copy(self)
        twin.turns = list(self.turns)
        twin._marks = dict(self._marks)
        return twin

    def state(self) -> State:
        """A copy of the state after the last turn; tokens that it lacks are read first."""
        state, rest = self._before(len(self.turns))
        if rest:
            self.model.feed(rest, state)
            self._keep(self.turns[-1].uid, state.fork())
        return state

    def kept(self) -> dict[str, State]:
        """The states in memory, by turn; not to be changed."""
        return {uid: state for uid, (state, rest) in self._marks.items() if not rest}

    def release(self, recent: int = 4) -> None:
        """Keep only the states of the last turns in memory; the shelf must have the others."""
        last = {turn.uid for turn in self.turns[-recent:]}
        self._marks = {uid: mark for uid, mark in self._marks.items() if uid in last}

    def _last(self) -> Turn:
        if not self.turns:
            raise OptionError("nothing has been said yet")
        return self.turns[-1]

    def _answer(self, number: int, text: str, wishes: Wishes, cancel: Cancel | None, tries: int = 0) -> Parts:
        """The answer to `text` as turn `number`, which takes the place of that turn and of what follows."""
        system = self.system or (self.turns[number].system if number < len(self.turns) else None)
        prompt = self.template.asks(text, self.think, system, number == 0)
        ids = ids_asked(self.model.tokenizer, self.template, text, self.think, system, number == 0)
        said = (token for turn in self.turns[:number] for token in turn.tokens)
        state, behind = self._before(number)
        plain = ids_kept(self.model.tokenizer, self.template, text, "", system, number == 0)
        part_at = 0 if self.think == "off" else parting(ids, plain)
        yield from self._catch_up(number, behind, state, cancel)
        model = self.model
        wishes = replace(wishes, asked=prompt)
        writer = Writer(ids, wishes, state, model.tokenizer, model.format, model.vocab)
        asked = yield from self._read(writer, len(ids), part_at, cancel)
        answer = Answer(Thinking(prompt), state.position + len(writer.feed))

        def settle() -> None:
            tokens = (*ids, *answer.fed(state))
            turn = Turn(
                text, *answer.texts(), system, self.think, tokens, answer.stop, uuid.uuid4().hex, tries
            )
            self._settle(number, turn, state, (asked, ids[:part_at]) if answer.split.tagged else None)

        steps = write(model, writer, cancel, drafting(self.draft, model, [*said, *ids]))
        try:
            for step in steps:
                yield from answer.parts(step)
        except GeneratorExit:  # the reader has had enough: what was said counts
            steps.close()  # the state then holds all tokens that were yielded
            if answer.counts:
                with suppress(EngineError):  # an error of the caller's is the one to see
                    settle()
            raise
        if answer.ids:
            settle()

    def _catch_up(self, number: int, ids: list[int], state: State, cancel: Cancel | None) -> Parts:
        """Read the tokens of earlier turns that `state`, before turn `number`, has not read yet."""
        done = 0
        while done < len(ids) and not is_set(cancel):
            self.model.skim(ids[done : done + PIECE], state)
            done = min(done + PIECE, len(ids))
            yield Part("reading", done=done, total=len(ids))
        if ids and number and done == len(ids):
            self._keep(self.turns[number - 1].uid, state.fork())

    def _read(
        self, writer: Writer, total: int, part_at: int, cancel: Cancel | None
    ) -> Generator[Part, None, State | None]:
        """Read all but the last piece of a prompt of `total` tokens; yields progress after each piece.

        Returns a copy of the state after the first `part_at` tokens; None if the prefix cache skipped that
        place.
        """
        writer.begin()
        asked: State | None = None
        while True:
            at = total - len(writer.feed)
            asked = writer.state.fork() if at == part_at else asked
            piece = writer.piece(min(PIECE, part_at - at) if at < part_at else PIECE)
            if len(piece) == len(writer.feed) or is_set(cancel):
                return asked
            self.model.skim(piece, writer.state)
            writer.read(len(piece))
            yield Part("reading", done=total - len(writer.feed), total=total)

    def _settle(
        self, number: int, turn: Turn, state: State, thoughtless: tuple[State | None, list[int]] | None
    ) -> None:
        """Make `turn` the last one, with the state after it.

        thoughtless  to remove thinking: a state within the turn, and the turn's tokens up to there. The rest
                     is read later, so that the turn can be stored first.
        """
        rest: list[int] = []
        if thoughtless:
            asked, common = thoughtless
            ids = ids_kept(
                self.model.tokenizer, self.template, turn.user, turn.answer, turn.system, number == 0
            )
            if asked is not None and ids[: len(common)] == common:
                state, rest = asked, ids[len(common) :]
            else:
                state, rest = self._before(number)
                rest += ids
            turn = replace(turn, tokens=tuple(ids))
        self.turns[number:] = [turn]
        self.system = None
        self._keep(turn.uid, state, rest)

    def _before(self, number: int) -> tuple[State, list[int]]:
        """A copy of a state at or before turn `number`, and the tokens from there to that turn."""
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

    def _keep(self, uid: str, state: State, rest: Sequence[int] = ()) -> None:
        self._marks[uid] = state, list(rest)
        wanted = {turn.uid for n, turn in enumerate(self.turns) if worth_keeping(n, len(self.turns))}
        self._marks = {uid: mark for uid, mark in self._marks.items() if uid in wanted}
