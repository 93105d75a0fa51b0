"""Held-out questions: does the model give exactly the right answer?

    python -m rwkv_engine_weights.recipe.evaluate --count 1000 --far 300

Prints exact match for each task, for questions whose answer lies more than 1,000 tokens back, for questions
that only the name can decide, and bits per character. The texts come from the same grammar as the corpus,
with seeds that training never uses.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from .corpus import Piece, chat, prose, turn
from .events import keep, like, move, scenery, tally, tell
from .tasks import FREE_TASKS, TASKS, ask
from .world import BOYS, GIRLS, World

if TYPE_CHECKING:
    from rwkv_engine import Model

#: tokens between the last of the facts and the question of a far one
FAR = 1000


@dataclass(frozen=True, slots=True)
class Question:
    """A text that ends with `Assistant:`, and what must follow it."""

    task: str
    prompt: str
    answer: str


def near_questions(seed: int, count: int) -> Iterator[Question]:
    """Talks of one to eight turns; the last question is asked."""
    for number in range(count):
        rng = Random(f"held out {seed} {number}")
        world, pieces = World.drawn(rng, rng.randint(2, 4)), []
        for place in range(rng.randint(1, 8)):
            told = [tell(world, quiet=0.1) for _ in range(rng.randint(1 if place == 0 else 0, 3))]
            task, question, answer = ask(world)
            pieces += turn(told, question, answer, first=place == 0)
        yield Question(task, _text(pieces[:-1]), answer)


def far_questions(seed: int, count: int, length: Callable[[str], int]) -> Iterator[Question]:
    """One long message: facts, then more than FAR tokens (`length` counts them) about other people, then a
    question about a fact.
    """
    for number in range(count):
        rng = Random(f"held out far {seed} {number}")
        people = rng.sample(GIRLS + BOYS, 6)
        world, others, filler = World(rng, people[:3]), World(rng, people[3:]), ""
        told = [tell(world) for _ in range(rng.randint(4, 8))]
        while length(filler) <= FAR:
            more = [
                rng.choices((scenery, move, like, keep), (6, 2, 1, 1))[0](others) or scenery(others)
                for _ in range(10)
            ]
            filler += " " + " ".join(more)
        task = next(iter(FREE_TASKS))
        while task in FREE_TASKS:
            task, question, answer = ask(world, free=0)
        yield Question(task, f"User: {' '.join(told)}{filler} {question}\n\nAssistant:", answer)


def told_together(seed: int, count: int, people: int) -> Iterator[Question]:
    """One message that tells a fact of one kind about each of so many people and asks about one: a guess is
    right in 1 of `people`.
    """
    for number in range(count):
        rng = Random(f"held out together {seed} {people} {number}")
        event, task = rng.choice(((move, "where"), (like, "favourite"), (keep, "pet"), (tally, "count")))
        worlds = [World(rng, [name]) for name in rng.sample(GIRLS + BOYS, people)]
        told = [event(world) for world in worlds]
        asked = TASKS[task](rng.choice(worlds))
        assert asked is not None
        yield Question(
            f"{people} people", f"User: {' '.join(filter(None, told))} {asked[0]}\n\nAssistant:", asked[1]
        )


def _text(pieces: list[Piece]) -> str:
    return "".join(text for text, _ in pieces)


def score(respond: Callable[[str], str], questions: Iterator[Question]) -> dict[str, tuple[int, int]]:
    """(right answers, questions) for each task; `respond` continues a prompt up to the end of the answer."""
    table: dict[str, tuple[int, int]] = {}
    for question in questions:
        right, asked = table.get(question.task, (0, 0))
        table[question.task] = (right + (respond(question.prompt).strip() == question.answer), asked + 1)
    return table


def responder(model: "Model") -> Callable[[str], str]:
    """The model's likeliest answer."""
    from rwkv_engine import Sampling

    greedy = Sampling(temperature=0)
    return lambda prompt: "".join(
        step.text for step in model.generate(prompt, max_tokens=40, sampling=greedy, stop=["\n\n"])
    )


def bits_per_character(model: "Model", documents: Iterator[list[Piece]]) -> float:
    """Cost of documents and their ends, given the token that ends the one before."""
    bits, characters = 0.0, 0
    end = model.tokenizer.end
    for pieces in documents:
        ids = [*model.tokenizer.encode(_text(pieces)), end]
        logits = model.feed([end, *ids[:-1]], model.new_state(), every=True).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(ids)), ids] - np.log(np.exp(logits).sum(axis=1))
        bits -= chosen.sum() / math.log(2)
        characters += len(_text(pieces))
    return bits / characters


def show(title: str, table: dict[str, tuple[int, int]]) -> None:
    """Print a table of exact match."""
    print(f"{title:<24}right of asked")
    for task, (right, asked) in sorted(table.items()):
        print(f"  {task:<20}{right:>7} of {asked:<6}{100 * right / asked:6.1f} %")
    right, asked = (sum(column) for column in zip(*table.values(), strict=True))
    print(f"  {'all':<20}{right:>7} of {asked:<6}{100 * right / asked:6.1f} %")


def main() -> None:
    """Command line."""
    import rwkv_engine

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a checkpoint; default: the embedded model")
    parser.add_argument("--weights", help="weight format")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--far", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model = rwkv_engine.load(options.model, options.weights)
    respond = responder(model)
    show("questions", score(respond, near_questions(options.seed, options.count)))
    counted = far_questions(options.seed, options.far, lambda text: len(model.tokenizer.encode(text)))
    show(f"over {FAR} tokens back", score(respond, counted))
    together = (question for people in (1, 2, 4) for question in told_together(options.seed, 100, people))
    show("told together", score(respond, together))
    stories = (prose(Random(f"held out story {options.seed} {n}")) for n in range(200))
    talks = (chat(Random(f"held out talk {options.seed} {n}"), 6, 2) for n in range(200))
    print(
        f"bits per character: stories {bits_per_character(model, stories):.3f}, talks {bits_per_character(model, talks):.3f}"
    )


if __name__ == "__main__":
    main()
