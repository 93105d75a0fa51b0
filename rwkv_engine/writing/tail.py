"""What a stop string could still take back of a text."""

import copy
from collections.abc import Sequence

from rwkv_engine.state import State


class Tail:
    """The last tokens, as far as a stop string could still take them back, and the state before the first of
    them.

    Bytes of a token may come only with later tokens: tokens whose bytes came together are taken back
    together.
    """

    __slots__ = ("_before", "_groups", "_open", "_shown")

    def __init__(self) -> None:
        self._begin(None)

    def _begin(self, before: State | None, groups: Sequence[tuple[list[int], int]] = ()) -> None:
        self._before, self._groups = before, list(groups)
        self._open: list[int] = []  # tokens whose bytes are still to come
        self._shown = 0

    def fork(self) -> "Tail":
        """A copy. The state is shared: it never changes."""
        twin = copy.copy(self)
        twin._groups, twin._open = list(self._groups), list(self._open)
        return twin

    def add(self, state: State, token: int, size: int, shown: int, held: int, waiting: int) -> None:
        """A token was chosen and not yet read, and `size` bytes came of it.

        shown    bytes that may now be shown.     held  bytes that are held back, for they may begin a stop
                 string.
        waiting  how many of the last tokens have bytes still to come.
        """
        if not held and not waiting:
            if self._before is not None:
                self._begin(None)
        elif not self._open and not waiting and held <= size:  # held back is of this token alone
            self._begin(state.fork(), [([token], size)])
            self._shown = size - held
        elif not held and waiting == 1:
            self._begin(state.fork())
            self._open = [token]
        else:
            tokens = [*self._open, token]
            done = tokens[: len(tokens) - waiting]
            self._open = tokens[len(tokens) - waiting :]
            self._groups += [(done, size)] if done or size else []
            self._shown += shown

    def rewound(self, state: State, shown: int) -> list[int]:
        """What to read to be behind the last token that lies wholly before a stop string; `state` goes back
        for it.

        The string begins `shown` bytes behind what was shown before. A token that is not read yet completes
        it.
        """
        if self._before is None:  # it begins in that token
            return []
        state.copy_from(self._before)
        left, kept = self._shown + shown, list[int]()
        for tokens, size in self._groups:
            left -= size
            if left < 0:
                break
            kept += tokens
        return kept
