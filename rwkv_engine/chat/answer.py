"""What is said in a conversation: turns, the parts of an answer that may be shown, and an answer as it is
written.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rwkv_engine.errors import OptionError
from rwkv_engine.state import State
from rwkv_engine.text.chat import Think
from rwkv_engine.text.thinking import Thinking
from rwkv_engine.writing.step import Step, StopReason


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    user, answer, thinking  texts.    system  what the model was told in front of this turn.    think  the
                            mode.
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


class Answer:
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
        if step.token is not None:
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

    @property
    def counts(self) -> bool:
        """Whether a turn comes of it: something was said, and the interpreter does not go down just now."""
        return bool(self.ids) and not sys.is_finalizing()

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


def require_text(verb: str, text: object) -> None:
    """Raise OptionError for what is no text, and for a blank one."""
    if not isinstance(text, str):
        raise OptionError.of(verb, text, "a text")
    if not text.strip():
        raise OptionError(f"{verb}: the text is empty")
