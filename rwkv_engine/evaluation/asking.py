"""Asking a model the questions of a task, many at once."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwkv_engine.evaluation.keeping import Keeper, key_of
from rwkv_engine.evaluation.likelihood import likelihoods, pair, room
from rwkv_engine.evaluation.tasks import ANSWER, CHOICE, LAST_WORD, Item, Task
from rwkv_engine.model import Model
from rwkv_engine.writing.batch import Batch
from rwkv_engine.writing.sampling import Sampling

Tell = Callable[[str], None]
#: questions between two times that something is kept
WINDOW = 128


@dataclass(frozen=True, slots=True)
class Score:
    """How a model did on one task.

    name, kind    of the task.          right, asked     questions.
    accuracy      right / asked.        accuracy_error   its standard error; None for one question.
    by_length     of choices: the share right when each is taken per letter (what others call acc_norm).
    perplexity    of last words.
    groups        group -> [right, asked], where the questions name one.
    """

    name: str
    kind: str
    right: int
    asked: int
    accuracy: float
    accuracy_error: float | None
    by_length: float | None
    perplexity: float | None
    groups: dict[str, list[int]]


def ask(model: Model, task: Task, keeper: Keeper, tell: Tell) -> Score:
    """The score of a model; questions that an earlier run has asked are not asked again."""
    items = [dataclasses.astuple(item) for item in task.items]
    key = key_of("task", model.fingerprint, model.format, items) if keeper.keeps else ""
    done: list[list[float]] = (keeper.find(key) or {"done": []})["done"]
    while len(done) < len(task.items):
        part = task.items[len(done) : len(done) + WINDOW]
        tell(f"{task.name}: {len(done):,} of {len(task.items):,} questions")
        done += _ASK[task.kind](model, part)
        keeper.keep(key, {"done": done})
    return _score(task, np.array(done, np.float64))


def written(
    model: Model,
    prompts: Sequence[str | Sequence[int]],
    stops: Sequence[Sequence[str]],
    lengths: Sequence[int],
) -> list[str]:
    """The likeliest text behind each prompt, up to one of its stop strings or so many tokens; many prompts at
    once.
    """
    batch, texts = Batch(model, room(model)), [""] * len(prompts)
    waiting, tickets = list(range(len(prompts)))[::-1], dict[int, int]()
    while waiting or len(batch):
        while waiting and len(batch) < batch.max_sequences:
            number = waiting.pop()
            ticket = batch.add(
                prompts[number],
                max_tokens=lengths[number],
                sampling=Sampling(temperature=0),
                stop=list(stops[number]),
            )
            tickets[ticket] = number
        for ticket, step in batch.step():
            texts[tickets[ticket]] += step.text
    return texts


def _write(model: Model, items: Sequence[Item]) -> list[list[float]]:
    """[right] of each question."""
    prompts, stops = [item.prompt for item in items], [item.stop for item in items]
    texts = written(model, prompts, stops, [item.max_tokens for item in items])
    return [[float(_is_right(item, text.strip()))] for item, text in zip(items, texts, strict=True)]


def _is_right(item: Item, text: str) -> bool:
    if item.regex is not None:
        return re.fullmatch(item.regex, text) is not None
    return text == str(item.answer).strip()


def _last_word(model: Model, items: Sequence[Item]) -> list[list[float]]:
    """[right, nats of the word] of each question."""
    found = likelihoods(model, [pair(model, item.prompt, item.options[0]) for item in items])
    return [[float(one.greedy), one.nats] for one in found]


def _choose(model: Model, items: Sequence[Item]) -> list[list[float]]:
    """[right, right per letter] of each question."""
    pairs = [pair(model, item.prompt, _behind(item.prompt, text)) for item in items for text in item.options]
    found, results = likelihoods(model, pairs), list[list[float]]()
    for item in items:
        costs, found = np.array([one.nats for one in found[: len(item.options)]]), found[len(item.options) :]
        letters = np.array([len(text) for text in item.options])
        chosen = int(costs.argmin()), int((costs / letters).argmin())
        results.append([float(place == item.answer) for place in chosen])
    return results


def _behind(prompt: str, choice: str) -> str:
    """A choice as it follows the prompt: with a space between them, unless one is there."""
    return choice if prompt[-1:].isspace() or choice[:1].isspace() or not prompt else " " + choice


_ASK: dict[str, Callable[[Model, Sequence[Item]], list[list[float]]]] = {
    LAST_WORD: _last_word,
    CHOICE: _choose,
    ANSWER: _write,
}


def _score(task: Task, done: np.ndarray) -> Score:
    right, asked = int(done[:, 0].sum()), len(done)
    share, groups = right / asked, dict[str, Any]()
    for item, (first, *_) in zip(task.items, done, strict=True):
        if item.group:
            before = groups.get(item.group, [0, 0])
            groups[item.group] = [before[0] + int(first), before[1] + 1]
    return Score(
        name=task.name,
        kind=task.kind,
        right=right,
        asked=asked,
        accuracy=share,
        accuracy_error=math.sqrt(share * (1 - share) / (asked - 1)) if asked > 1 else None,
        by_length=float(done[:, 1].mean()) if task.kind == CHOICE else None,
        perplexity=math.exp(min(700.0, done[:, 1].mean())) if task.kind == LAST_WORD else None,
        groups=dict(sorted(groups.items())),
    )
