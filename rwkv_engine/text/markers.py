"""Prompts in which the template's special tokens are special tokens, and the same text from a user is not.

Characters of a message that could be read as a special token are replaced by private ones before the
template is rendered, and put back after the special tokens have been found.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rwkv_engine.errors import EngineError, OptionError
from rwkv_engine.text.chat import Message, Template, Think
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


def ids_rendered(
    tokenizer: Tokenizer,
    template: Template,
    messages: Sequence[Message],
    think: Think = "off",
    tools: Sequence[Mapping[str, Any]] = (),
    call: bool = False,
    *,
    goes_on: bool = False,
    answer: str | None = None,
) -> tuple[list[int], str]:
    """A conversation of whole messages, up to where the next answer begins: ids, and the text for `Thinking`.

    goes_on  only what comes behind an earlier answer, which a state has read.
    answer   not None: the conversation as history keeps it, with this answer at its end.
    Raises   OptionError for messages that the template does not write down.
    """
    told = json.dumps(list(tools), ensure_ascii=False)
    hide, tell = _hiding(tokenizer, told, answer or "", *(message.text for message in messages))
    before, after = itertools.islice(unused(told, answer or "", *(m.text for m in messages)), 50, 52)
    written = [replace(message, text=hide(message.text)) for message in messages]
    if goes_on:
        written = [Message("user", "-"), Message("assistant", before), *written]
    if answer is not None:
        written += [Message("assistant", after), Message("user", "-")]
    text = template.render(written, "off" if answer is not None else think, json.loads(hide(told)), call)
    if goes_on:
        text = _behind(template, text, before)
    if answer is not None:
        found, there, _ = text.partition(after)
        if not there:
            raise OptionError(f"template {template.name}: it does not write down what the assistant said")
        text = found + hide(answer.strip()) if answer.strip() else found.rstrip(" ")
    return tell(text), text


def _behind(template: Template, text: str, mark: str) -> str:
    """What the template wrote behind the mark that stands for the answer before."""
    _, written, behind = text.partition(mark)
    if not written:
        raise OptionError(f"template {template.name}: it does not write down what the assistant said")
    return behind


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
