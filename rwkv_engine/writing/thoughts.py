"""A thought in front of an answer: its tokens are counted apart, and one that gets too long is closed."""

import copy

from rwkv_engine.text import Tokenizer
from rwkv_engine.text.thinking import CLOSE, Thinking, unclosed

#: what closes a thought, on lines of its own as models write it
CLOSING = f"\n{CLOSE}\n"


class Thoughts:
    """The thought of one text under way.

    prompt  the text in front, whose end may begin a thought.
    most    tokens of a thought, without what closes it; None: as many as the model likes.
    inside  whether it goes on.
    count   its tokens so far, with those that opened and closed it.
    """

    __slots__ = ("_closing", "_most", "_split", "_tail", "_tokenizer", "_written", "count", "inside")

    def __init__(self, prompt: str, most: int | None, tokenizer: Tokenizer) -> None:
        self._most, self._tokenizer, self._split = most, tokenizer, Thinking(prompt)
        self.inside = self._split.inside
        self._closing: list[int] | None = None  # what is left of the tokens that close it; None: not begun
        self._tail = ""
        self._written = self.count = 0

    def forced(self, whole: bool) -> int | None:
        """The token that closes a thought which is too long; None: the model goes on as it likes.

        whole  whether the text so far ends with a whole character.
        """
        long = self.inside and self._most is not None and self.count >= self._most
        if self._closing is None and long and whole:
            begun = unclosed(self._tail)  # the model may be closing it just now
            self._closing = _ids(self._tokenizer, f"{CLOSE[begun:]}\n" if begun else CLOSING)
        return self._closing.pop(0) if self._closing else None

    def add(self, data: bytes) -> None:
        """A token was written, and these bytes of the text became certain."""
        before, text = self.inside, data.decode("latin-1")  # the tags are ASCII, which is the same there
        self._written += 1
        self._split.push(text)
        self._tail = (self._tail + text)[-len(CLOSE) :]
        self.inside = self._split.inside and self._closing != []
        if before:
            self.count += 1
        elif self.inside:
            self.count = self._written  # the tag that opened it

    def fork(self) -> "Thoughts":
        """A copy that goes its own way."""
        twin = copy.copy(self)
        twin._split = copy.copy(self._split)
        twin._closing = None if self._closing is None else list(self._closing)
        return twin


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text in which markers are special tokens."""
    ids: list[int] = []
    for part in tokenizer.split(text):
        ids += [part] if isinstance(part, int) else tokenizer.encode(part) if part else []
    return ids
