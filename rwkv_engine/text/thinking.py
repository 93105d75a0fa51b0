"""Splits an answer into the thinking between `<think>` and `</think>`, and the answer itself."""

import re

OPEN, CLOSE = "<think>", "</think>"
#: what a prompt may already contain: an open tag or empty thinking, whole or without the last ">"
_PRIMED = re.compile(r"<think(?:>\s*(?:</think>?\s*)?)?\Z")


def unclosed(text: str) -> int:
    """How many of the last characters may be the beginning of the closing tag."""
    return max(n for n in range(len(CLOSE)) if text.endswith(CLOSE[:n]))


class Thinking:
    """Text in, (thinking, answer) out, as it comes; an incomplete tag waits for the rest of it.

    prompt  the model's prompt: its end may already begin the thinking.
    tagged  whether there is any thinking, even if it is empty.
    White space around the thinking and before the answer is dropped.
    """

    __slots__ = ("_bare", "_held", "_inside", "_opened", "_skip", "tagged")

    def __init__(self, prompt: str = "") -> None:
        found = _PRIMED.search(prompt)
        primed = found[0].rstrip() if found else ""
        self._held = ""
        self.tagged = bool(primed)
        self._opened = bool(primed)  # whether it is known if there is a thought
        self._inside = bool(primed) and "</" not in primed  # whether the thought goes on
        self._skip = bool(primed) and not primed.endswith(
            ">"
        )  # whether the tag's last letter is still to come
        self._bare = True  # nothing but white space so far on this side of the tag

    @property
    def inside(self) -> bool:
        """Whether the text so far ends inside the thinking."""
        return self._inside

    def push(self, text: str) -> tuple[str, str]:
        """The new parts of (thinking, answer)."""
        if self._skip and text:
            text, self._skip = text.removeprefix(">"), False
        self._held += text
        thought = ""
        if not self._opened:
            start = self._held.lstrip()
            if not start or (OPEN.startswith(start) and start != OPEN):
                return "", ""
            self._opened, self._inside = True, start.startswith(OPEN)
            self.tagged = self._inside
            self._held = start[len(OPEN) :] if self._inside else self._held
        if self._inside:
            before, closed, after = self._held.partition(CLOSE)
            if not closed:
                shown = before[
                    : len(before) - unclosed(before)
                ].rstrip()  # white space waits too: it may be the end
                self._held = before[len(shown) :]
                return self._trimmed(shown), ""
            thought = self._trimmed(before.rstrip())
            self._inside, self._bare, self._held = False, True, after
        said, self._held = self._trimmed(self._held), ""
        return thought, said

    def finish(self) -> tuple[str, str]:
        """The parts that were held back: there is no more text."""
        text, self._held = self._held, ""
        if self._inside:
            return self._trimmed(text.rstrip()), ""
        return "", self._trimmed(text)

    def _trimmed(self, text: str) -> str:
        text = text.lstrip() if self._bare else text
        self._bare = self._bare and not text
        return text
