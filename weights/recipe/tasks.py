"""What can be asked, and the one right answer: each task draws a question that the world as told can answer."""

from collections.abc import Callable
from random import Random

from .world import NUMBERS, World, plural

Asked = tuple[str, str]
WORDS = (
    "cat dog sun hat cup map key red ten bed box car day egg fox hen ice jam kid leg man net old pen rat sea tea van web zoo bird boat "
    "book cake door duck farm fish frog game girl goat hand home king lamp leaf milk moon nest rain ring road rose ship snow star tree wind"
).split()
GREETINGS = ("Hello!", "Hi!", "Good morning!", "Hello there!", "Good day!")
ABOUT = (
    (
        ("Who are you?", "What are you?", "Tell me who you are."),
        "I am a tiny RWKV model that runs on your computer.",
    ),
    (("What can you do?", "What are you good at?"), "I tell little stories and answer questions about them."),
    (("Do you know everything?", "Are you clever?"), "No, I am very small and know only little stories."),
    (("How are you?", "How do you feel?"), "I am fine, thank you."),
    (("Thank you!", "Thanks!"), "You are welcome."),
    (("Goodbye!", "Bye!"), "Goodbye!"),
)


def where(w: World) -> Asked | None:
    """Where somebody is now."""
    if not w.where:
        return None
    name = w.rng.choice(sorted(w.where))
    return f"Where is {name}?", f"{name} is in the {w.where[name]}."


def first_place(w: World) -> Asked | None:
    """Where somebody went first."""
    moved = sorted(n for n in w.first if w.told["where", n] > 1)
    if not moved:
        return None
    name = w.rng.choice(moved)
    return f"Where did {name} go first?", f"First {name} went to the {w.first[name]}."


def owner(w: World) -> Asked | None:
    """Who has an object."""
    if not w.owner:
        return None
    thing = w.rng.choice(sorted(w.owner))
    return f"Who has the {thing}?", f"{w.owner[thing]} has the {thing}."


def colour(w: World) -> Asked | None:
    """An object's colour."""
    if not w.colour:
        return None
    thing = w.rng.choice(sorted(w.colour))
    return f"What colour is the {thing}?", f"The {thing} is {w.colour[thing]}."


def pet(w: World) -> Asked | None:
    """A person's pet."""
    if not w.pet:
        return None
    name = w.rng.choice(sorted(w.pet))
    return f"What pet does {name} have?", f"{name} has a {w.pet[name]}."


def favourite(w: World) -> Asked | None:
    """A person's favourite colour."""
    if not w.favourite:
        return None
    name = w.rng.choice(sorted(w.favourite))
    return f"Which colour does {name} like best?", f"{name} likes {w.favourite[name]} best."


def count(w: World) -> Asked | None:
    """How many of a thing somebody has."""
    if not w.count:
        return None
    name, thing = w.rng.choice(sorted(w.count))
    n = w.count[name, thing]
    return f"How many {thing}s does {name} have?", f"{name} has {NUMBERS[n]} {plural(thing, n)}."


def order(w: World) -> Asked | None:
    """What happened first or last."""
    if not w.events:
        return None
    if w.rng.random() < 0.5:
        return "What happened first?", f"First {w.events[0]}."
    return "What happened last?", f"At last {w.events[-1]}."


def addition(rng: Random) -> Asked:
    """A small sum."""
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return rng.choice((f"What is {a} plus {b}?", f"How much is {a} plus {b}?")), f"{a} plus {b} is {a + b}."


def backwards(rng: Random) -> Asked:
    """A word's letters, last first."""
    word = rng.choice(WORDS)
    return rng.choice((f"Say the word {word} backwards.", f"What is {word} backwards?")), " ".join(
        reversed(word)
    ) + "."


def greeting(rng: Random) -> Asked:
    """Hello, and what the model is."""
    if rng.random() < 0.3:
        return rng.choice(GREETINGS), "Hello! I tell little stories. Ask me about them."
    questions, answer = rng.choice(ABOUT)
    return rng.choice(questions), answer


TASKS: dict[str, Callable[[World], Asked | None]] = {
    "where": where,
    "first place": first_place,
    "owner": owner,
    "colour": colour,
    "pet": pet,
    "favourite": favourite,
    "count": count,
    "order": order,
}
FREE_TASKS: dict[str, Callable[[Random], Asked]] = {
    "addition": addition,
    "backwards": backwards,
    "greeting": greeting,
}


#: facts that change while a text goes on, which are the last to be learned
CHANGING = ("where", "first place", "owner")


def ask(w: World, free: float = 0.12, changing: float = 0.0) -> tuple[str, str, str]:
    """(task, question, answer): about the world, or with probability `free` about nothing that was told.

    With probability `changing` one of the CHANGING tasks is asked, if the world as told can answer one.
    """
    if w.rng.random() >= free:
        order = w.rng.sample(list(TASKS), len(TASKS))
        if changing and w.rng.random() < changing:
            order.sort(key=lambda task: task not in CHANGING)
        for task in order:
            asked = TASKS[task](w)
            if asked:
                return task, *asked
    task = w.rng.choices(list(FREE_TASKS), (3, 3, 2))[0]
    return task, *FREE_TASKS[task](w.rng)
