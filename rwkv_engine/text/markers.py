"""Prompts in which the template's special tokens are special tokens, and the same text from a user is not.

Characters of a message that could be read as a special token are replaced by private ones before the
template is rendered, and put back after the special tokens have been found.
"""

import itertools
import re
from collections.abc import Callable, Iterator

from rwkv_engine.errors import EngineError
from rwkv_engine.text.chat import Template, Think
from rwkv_engine.text.tokenizer import Tokenizer


def ids_asked(
    tokenizer: Tokenizer, template: Template, text: str, think: Think, system: str | None, first: bool
) -> list[int]:
    """The ids of `template.asks`."""
    hide, tell = _hiding(tokenizer, text, system or "")
    return tell(template.asks(hide(text), think, hide(system) if system else system, first))


def ids_kept(
    tokenizer: Tokenizer, template: Template, text: str, answer: str, system: str | None, first: bool
) -> list[int]:
    """The ids of `template.keeps`."""
    hide, tell = _hiding(tokenizer, text, answer, system or "")
    return tell(template.keeps(hide(text), hide(answer), hide(system) if system else system, first))


def turn_ends(tokenizer: Tokenizer, template: Template) -> frozenset[int]:
    """The special tokens between an answer and the next question; each of them ends an answer."""
    if not tokenizer.markers:
        return frozenset()
    question = next(unused(""))
    try:
        text = template.asks(question, "off", None, False)
    except EngineError:  # it cannot be used for a second turn, and says so then
        return frozenset()
    between = tokenizer.split(text.partition(question)[0])
    return frozenset(part for part in between if isinstance(part, int))


def unused(*texts: str) -> Iterator[str]:
    """Private-use characters that none of the texts contains."""
    return (
        letter for letter in map(chr, range(0xF0000, 0xFFFFE)) if not any(letter in text for text in texts)
    )


def _hiding(tokenizer: Tokenizer, *texts: str) -> tuple[Callable[[str], str], Callable[[str], list[int]]]:
    """(a function that hides markers in a message, a function that makes ids of a prompt with such messages)."""
    if not tokenizer.markers:
        return str, tokenizer.encode
    # overlapping markers too: every position where one begins
    places = re.compile(f"(?={'|'.join(map(re.escape, tokenizer.markers))})")
    first = sorted({marker[0] for marker in tokenizer.markers})
    private = dict(zip(first, itertools.islice(unused(*texts), len(first)), strict=True))
    back = str.maketrans({stand_in: letter for letter, stand_in in private.items()})

    def hide(text: str) -> str:
        out, at = [], 0
        for found in places.finditer(text):
            out += [text[at : found.start()], private[text[found.start()]]]
            at = found.start() + 1
        return "".join([*out, text[at:]])

    def tell(prompt: str) -> list[int]:
        ids: list[int] = []
        for part in filter(lambda part: part != "", tokenizer.split(prompt)):
            ids += [part] if isinstance(part, int) else tokenizer.encode(part.translate(back))
        return ids

    return hide, tell
