"""Tasks as JSON lines: last words, choices by likelihood, and answers that the model writes."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwkv_engine.errors import OptionError, brief, shown
from rwkv_engine.evaluation.texts import EMBEDDED
from rwkv_engine.loading import tokenizer_of
from rwkv_engine.system.json_text import parsed

#: most bytes of a line
LINE = 1 << 22
LAST_WORD, CHOICE, ANSWER = "last word", "choice", "answer"
_WANTED = 'want {"text": ...}, or a "prompt" with "choices" and "answer", with "answer", or with "regex"'


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    kind        LAST_WORD, CHOICE or ANSWER.       group       by which right answers are counted apart, or
                "".
    prompt      what is read.                      options     what may follow: the last word, or all choices.
    answer      number of the right option, or the text that must be written.
    regex       what the written text must match instead, from end to end.
    stop        texts that end a written answer.   max_tokens  of it.
    """

    kind: str
    group: str
    prompt: str
    options: tuple[str, ...] = ()
    answer: int | str = 0
    regex: str | None = None
    stop: tuple[str, ...] = ("\n\n",)
    max_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Task:
    """A file of questions of one kind."""

    name: str
    kind: str
    items: tuple[Item, ...]


def task_of(source: str | Path, limit: int | None = None) -> Task:
    """The task in a file of JSON lines; "embedded": the questions of the embedded model's card.

    Raises OptionError.
    """
    if str(source) == EMBEDDED:
        return Task(EMBEDDED, ANSWER, tuple(_embedded())[:limit])
    path, items = Path(source), list[Item]()
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(LINE + 1), b""), 1):
                if line.strip() and (limit is None or len(items) < limit):
                    items.append(_item(f"{path}: line {number}", line))
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror or error}", path=path) from None
    if not items:
        raise OptionError(f"{path}: there is no question in it; {_WANTED}", path=path)
    kinds = sorted({item.kind for item in items})
    if len(kinds) > 1:
        raise OptionError(
            f"{path}: got questions of several kinds ({', '.join(kinds)}); give each kind a file of its own",
            path=path,
        )
    return Task(path.stem, kinds[0], tuple(items))


def _item(where: str, line: bytes) -> Item:
    if len(line) > LINE:
        raise OptionError(f"{where} has over {LINE >> 20} MB; want one JSON object in each line")
    try:
        fields = parsed(line)
    except UnicodeDecodeError as error:
        raise OptionError(f"{where} is not UTF-8 text (byte {error.start}); convert it first") from None
    except ValueError as error:
        raise OptionError(f"{where} is no JSON ({brief(error)}); want one JSON object in each line") from None
    if not isinstance(fields, dict):
        raise OptionError(f"{where}: got {brief(fields, 40)}; {_WANTED}")
    get = fields.get
    group, prompt = str(get("task", "")), get("prompt")
    text = get("text")
    if prompt is None and isinstance(text, str):
        before, space, word = text.rpartition(" ")
        if not before.strip() or not word:
            raise OptionError(
                f"{where}: text: got {shown(text)}, want several words with spaces between them"
            )
        return Item(LAST_WORD, group, before, (space + word,))
    if not isinstance(prompt, str):
        raise OptionError(f"{where}: {_WANTED}")
    if "choices" in fields:
        return _choice(where, group, prompt, fields)
    stop, most, regex, answer = get("stop", ["\n\n"]), get("max_tokens", 64), get("regex"), get("answer")
    if not isinstance(stop, list) or not all(isinstance(text, str) and text for text in stop):
        raise OptionError(f"{where}: stop: got {shown(stop)}, want a list of texts")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise OptionError(f"{where}: max_tokens: got {shown(most)}, want a whole number of 1 or more")
    if regex is None and not isinstance(answer, str):
        raise OptionError(f"{where}: {_WANTED}")
    if regex is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                re.compile(regex)
        except (re.error, TypeError) as error:
            raise OptionError(
                f"{where}: regex: got {shown(regex)}, which is no regular expression ({brief(error)})"
            ) from None
    return Item(ANSWER, group, prompt, (), answer or "", regex, tuple(stop), most)


def _choice(where: str, group: str, prompt: str, fields: dict[str, Any]) -> Item:
    choices, answer = fields["choices"], fields.get("answer")
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(text, str) and text for text in choices)
    ):
        raise OptionError(f"{where}: choices: got {shown(choices)}, want a list of two texts or more")
    place = choices.index(answer) if answer in choices else answer
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(choices):
        raise OptionError(
            f"{where}: answer: got {shown(answer)}, want one of the choices, or its number counted from 0"
        )
    return Item(CHOICE, group, prompt, tuple(choices), place)


def _embedded() -> Iterator[Item]:
    from rwkv_engine_weights.recipe.evaluate import far_questions, near_questions

    for question in near_questions(1, 1000):
        yield Item(ANSWER, question.task, question.prompt, (), question.answer, None, ("\n\n",), 40)
    words = tokenizer_of()  # the questions are those of the card, whichever model is asked
    for question in far_questions(1, 300, lambda text: len(words.encode(text))):
        yield Item(ANSWER, "far " + question.task, question.prompt, (), question.answer, None, ("\n\n",), 40)
