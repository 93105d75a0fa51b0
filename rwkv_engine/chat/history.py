"""Which states of a conversation are kept, and the same conversation for another model."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from rwkv_engine.chat.answer import Turn
from rwkv_engine.state import State
from rwkv_engine.text import Tokenizer
from rwkv_engine.text.chat import Template
from rwkv_engine.text.markers import ids_kept

#: states of the last turns that are all kept; of older ones, a quarter as many for each doubling of the
#: distance
RECENT = 24


class Shelf(Protocol):
    """Where states of turns lie that are not in memory."""

    def fetch(self, uid: str) -> State | None:
        """The state after the turn `uid`, or None: it will be made again by reading."""


def parting(asked: Sequence[int], kept: Sequence[int]) -> int:
    """How many tokens of a prompt stay in history whatever the answer is: up to where thinking is asked for.

    asked, kept  the prompt's ids, and those that history holds of it.
    """
    same = next(
        (n for n, (a, b) in enumerate(zip(asked, kept, strict=False)) if a != b), min(len(asked), len(kept))
    )
    return min(same, len(asked) - 1)


def worth_keeping(number: int, count: int) -> bool:
    """Whether the state after turn `number` of `count` is kept: of the last RECENT, and of every sixth,
    twelfth ... further back.

    That is RECENT / 4 for each doubling of the distance. A turn that is dropped is not wanted again as the
    conversation goes on.
    """
    distance = count - number
    return distance <= RECENT or (number + 1) % (RECENT // 4 << int(math.log2(distance / RECENT))) == 0


def reread(turns: Sequence[Turn], tokenizer: Tokenizer, template: Template) -> list[Turn]:
    """The same conversation for another model or template: the texts stay, tokens and names are new, and no
    state belongs to it.
    """
    return [
        replace(
            turn,
            tokens=tuple(ids_kept(tokenizer, template, turn.user, turn.answer, turn.system, number == 0)),
            uid=uuid.uuid4().hex,
        )
        for number, turn in enumerate(turns)
    ]
