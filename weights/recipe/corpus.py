"""Documents of the corpus, and batches of tokens made of them.

A document is a list of pieces (text, weight): the weight says how much the prediction of the piece's tokens
counts. What a person says is mostly chance and counts little; an answer follows from what was told and counts
most.
"""

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from .events import get, keep, like, move, paint, scenery, tally, tell
from .stories import story
from .tasks import ask
from .world import BOYS, COLOURS, GIRLS, OBJECTS, PETS, PLACES, World

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Piece = tuple[str, float]
ANSWER_WEIGHT, TEXT_WEIGHT, SAID_WEIGHT = 5.0, 1.0, 0.3
END = 0  # the token that ends a document
#: share of documents that are plain prose; they are shorter than talks, most of all than long ones
PROSE = {
    "short": 0.18,
    "mixed": 0.45,
    "long": 0.3,
    "talk": 0.08,
    "far": 0.05,
    "recall": 0.03,
    "pairs": 0.0,
    "stories": 1.0,
}
#: share of questions about facts that change, beyond their share among all tasks
CHANGING = {
    "short": 0.0,
    "mixed": 0.0,
    "long": 0.0,
    "talk": 0.5,
    "far": 0.3,
    "recall": 0.0,
    "pairs": 0.0,
    "stories": 0.0,
}


def turn(told: list[str], question: str, answer: str, first: bool) -> list[Piece]:
    """One exchange in the form `User: ...\n\nAssistant: ...`; all but the first start with the blank line
    between turns.

    That blank line (or the end of the document) is what ends an answer, so it counts as part of it.
    """
    opening: list[Piece] = [] if first else [("\n\n", ANSWER_WEIGHT)]
    said: list[Piece] = [(" " + sentence, SAID_WEIGHT) for sentence in (*told, question)]
    return [
        *opening,
        ("User:", TEXT_WEIGHT),
        *said,
        ("\n\n", SAID_WEIGHT),
        ("Assistant:", TEXT_WEIGHT),
        (" " + answer, ANSWER_WEIGHT),
    ]


def chat(rng: Random, turns: int, sentences: int, changing: float = 0.0) -> list[Piece]:
    """A talk of so many turns, each telling up to so many things and asking about all that was told so far."""
    world = World.drawn(rng, rng.randint(2, 4))
    pieces: list[Piece] = []
    for number in range(turns):
        told = [tell(world, quiet=0.1) for _ in range(rng.randint(1 if number == 0 else 0, sentences))]
        _, question, answer = ask(world, changing=changing)
        pieces += turn(told, question, answer, first=number == 0)
    return pieces


#: what stands between a name and what belongs to it
BETWEEN = ("", " likes", " has a", " is", " went to the", " is in the", " took the")


def pairs(rng: Random) -> list[Piece]:
    """Names with something that belongs to each, then one asked for after another: nothing but memory by name
    helps here.

    Half of the time it is the other way round: what is asked for stands before the name, as the owner stands
    before what is owned.
    """
    number, around = rng.randint(4, 12), rng.random() < 0.5
    keys = rng.sample(rng.choice((GIRLS + BOYS, OBJECTS)), number)
    things = rng.choice((PLACES, COLOURS, PETS, OBJECTS, GIRLS + BOYS))
    values = [rng.choice(things) for _ in keys]
    said = rng.choice(BETWEEN)
    again = said if rng.random() < 0.7 else rng.choice(BETWEEN)
    both = [(value, key) if around else (key, value) for key, value in zip(keys, values, strict=True)]
    pieces: list[Piece] = [(f" {first}{said} {second}", SAID_WEIGHT) for first, second in both]
    for place in rng.sample(range(number), number):
        asked = f" Who{said} {keys[place]}?" if around else f" {keys[place]}{again}"
        pieces += [(asked, SAID_WEIGHT), (f" {values[place]}", ANSWER_WEIGHT)]
    return pieces


def recall_chat(rng: Random) -> list[Piece]:
    """A talk that begins with facts of one kind, or two, about many people or things and asks for one after
    another.

    Here nothing but the name tells the right answer, and guessing among what was said is wrong most of the
    time. In other talks the last thing of its kind, or the only one, is right so often that a network stays
    with that.
    """
    world = World.drawn(rng, rng.randint(2, 9))
    kinds = rng.sample((move, like, keep, get, tally, paint), rng.choice((1, 1, 2)))
    told = [rng.choice(kinds)(world) or move(world) for _ in range(len(world.people) + rng.randint(0, 2))]
    pieces: list[Piece] = []
    asked: set[str] = set()
    for _ in range(3 * len(told)):
        _, question, answer = ask(world, free=0)
        if question not in asked:
            asked.add(question)
            pieces += turn([] if pieces else told, question, answer, first=not pieces)
    return pieces


def far_chat(rng: Random, filler: int, turns: int, changing: float = 0.0) -> list[Piece]:
    """A talk that begins with some facts, goes on with `filler` sentences about other people, then asks about
    the facts.
    """
    people = rng.sample(GIRLS + BOYS, 6)
    world, others = World(rng, people[:3]), World(rng, people[3:])
    told = [tell(world) for _ in range(rng.randint(4, 8))]
    for _ in range(filler):
        told.append(rng.choices((scenery, move, like, keep), (6, 2, 1, 1))[0](others) or scenery(others))
    pieces: list[Piece] = []
    for number in range(turns):
        _, question, answer = ask(world if rng.random() < 0.8 else others, free=0.03, changing=changing)
        pieces += turn(told if number == 0 else [], question, answer, first=number == 0)
    return pieces


def prose(rng: Random) -> list[Piece]:
    """A story in plain prose."""
    first, *rest = story(rng)
    return [(first, TEXT_WEIGHT), *((" " + sentence, TEXT_WEIGHT) for sentence in rest)]


def document(rng: Random, mix: str) -> list[Piece]:
    """One document for a stage of the training: a mix is one of the keys of PROSE."""
    if rng.random() < PROSE[mix]:
        return prose(rng)
    kind, changing = rng.random(), CHANGING[mix]
    if mix == "pairs":
        return pairs(rng)
    if mix == "recall":
        return recall_chat(rng)
    if mix == "short":
        return chat(rng, rng.randint(2, 6), 2)
    if mix == "talk":
        return chat(rng, rng.randint(3, 10), 3, changing)
    if mix == "mixed":
        if kind < 0.33:
            return far_chat(rng, rng.randint(5, 40), rng.randint(2, 6))
        return chat(rng, rng.randint(2, 16), rng.randint(2, 4))
    if kind < 0.7:
        return far_chat(rng, rng.randint(20, 150), rng.randint(4, 16), changing)
    return chat(rng, rng.randint(20, 60), 3, changing)


class Encoder:
    """Token ids of pieces; sentences come again and again, so they are remembered."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        ids = self._known.get(text)
        if ids is None:
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
            if len(self._known) < 200_000:
                self._known[text] = ids
        return ids


def stream(rng: Random, encode: Encoder, mix: str) -> Iterator[tuple[int, float]]:
    """Endless (token, weight): documents, each followed by the token that ends it; one in five starts with
    that token too.
    """
    if rng.random() < 0.2:
        yield END, 0.0
    while True:
        pieces = document(rng, mix)
        for text, weight in pieces:
            for token in encode(text):
                yield token, weight
        yield END, pieces[-1][1]


def batch(
    rng: Random, encode: Encoder, rows: int, length: int, mix: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(inputs [rows, length] int64, targets [rows, length] int64, weights [rows, length] float32)."""
    tokens = np.empty((rows, length + 1), np.int64)
    weights = np.empty((rows, length + 1), np.float32)
    for row in range(rows):
        for column, (token, weight) in zip(range(length + 1), stream(rng, encode, mix)):  # noqa: B905 (the stream is endless)
            tokens[row, column] = token
            weights[row, column] = weight
    return tokens[:, :-1], tokens[:, 1:], weights[:, 1:]
