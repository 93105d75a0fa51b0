"""What can happen in the little world: each event changes it and says so in a sentence."""

from collections.abc import Callable

from .world import COLOURS, HAPPENINGS, NUMBERS, OBJECTS, PETS, PLACES, SCENERY, THINGS, World, plural

Event = Callable[[World], str | None]


def move(w: World) -> str:
    """Somebody goes somewhere; a person's first way says that it is the first."""
    name = w.rng.choice(w.people)
    place = w.rng.choice([p for p in PLACES if p != w.where.get(name)])
    w.told["where", name] = w.told.get(("where", name), 0) + 1
    w.where[name] = place
    if name not in w.first:
        w.first[name] = place
        return f"First {name} {w.rng.choice(('went to', 'walked to', 'was in'))} the {place}."
    return w.rng.choice(
        (
            f"Then {name} went to the {place}.",
            f"Then {name} walked to the {place}.",
            f"{name} ran to the {place}.",
            f"{name} is in the {place} now.",
            f"After that {name} came to the {place}.",
        )
    )


def get(w: World) -> str:
    """Somebody takes an object that nobody has, or gives one away."""
    free = [o for o in OBJECTS if o not in w.owner]
    if w.owner and (w.rng.random() < 0.5 or not free):
        thing = w.rng.choice(sorted(w.owner))
        giver = w.owner[thing]
        other = [p for p in w.people if p != giver]
        if other:
            taker = w.rng.choice(other)
            w.owner[thing] = taker
            return w.rng.choice(
                (
                    f"{giver} gave the {thing} to {taker}.",
                    f"{giver} handed {taker} the {thing}.",
                    f"{taker} got the {thing} from {giver}.",
                )
            )
    if not free:
        return w.rng.choice(SCENERY)
    name, thing = w.rng.choice(w.people), w.rng.choice(free)
    w.owner[thing] = name
    return w.rng.choice(
        (
            f"{name} took the {thing}.",
            f"{name} found the {thing}.",
            f"{name} picked up the {thing}.",
            f"{name} has the {thing}.",
        )
    )


def paint(w: World) -> str | None:
    """An object's colour."""
    plain = [o for o in OBJECTS if o not in w.colour]
    if not plain:
        return None
    thing = w.rng.choice(plain)
    w.colour[thing] = w.rng.choice(COLOURS)
    return w.rng.choice((f"The {thing} is {w.colour[thing]}.", f"There is a {w.colour[thing]} {thing}."))


def keep(w: World) -> str | None:
    """A person's pet."""
    alone = [p for p in w.people if p not in w.pet]
    if not alone:
        return None
    name = w.rng.choice(alone)
    w.pet[name] = w.rng.choice(PETS)
    return w.rng.choice((f"{name} has a {w.pet[name]} as a pet.", f"{name} keeps a {w.pet[name]}."))


def like(w: World) -> str | None:
    """A person's favourite colour."""
    open_ = [p for p in w.people if p not in w.favourite]
    if not open_:
        return None
    name = w.rng.choice(open_)
    w.favourite[name] = w.rng.choice(COLOURS)
    return w.rng.choice(
        (f"{name} likes {w.favourite[name]} best.", f"The favourite colour of {name} is {w.favourite[name]}.")
    )


def tally(w: World) -> str:
    """Somebody has some things, gets one more or loses one."""
    known = sorted(key for key, n in w.count.items())
    if known and w.rng.random() < 0.5:
        name, thing = w.rng.choice(known)
        now = w.count[name, thing]
        if now < 8 and (now < 2 or w.rng.random() < 0.5):
            w.count[name, thing] = now + 1
            return f"{name} got one more {thing}. Now {name} has {NUMBERS[now + 1]} {plural(thing, now + 1)}."
        w.count[name, thing] = now - 1
        return f"{name} lost one {thing}. Now {name} has {NUMBERS[now - 1]} {plural(thing, now - 1)}."
    free = [(p, t) for p in w.people for t in THINGS if (p, t) not in w.count]
    name, thing = w.rng.choice(free)
    number = w.rng.randint(1, 7)
    w.count[name, thing] = number
    return f"{name} has {NUMBERS[number]} {plural(thing, number)}."


def happen(w: World) -> str | None:
    """Three things happen in an order that is told."""
    if w.events:
        return None
    w.events = w.rng.sample(HAPPENINGS, w.rng.choice((2, 3)))
    words = ("First", "Then") if len(w.events) == 2 else ("First", "Then", "At last")
    return " ".join(f"{word} {what}." for word, what in zip(words, w.events, strict=True))


def scenery(w: World) -> str:
    """Nothing that anybody asks about."""
    return w.rng.choice(SCENERY)


#: how often each event is drawn
WEIGHTED: tuple[tuple[Event, int], ...] = (
    (move, 7),
    (get, 7),
    (paint, 2),
    (keep, 2),
    (like, 2),
    (tally, 4),
    (happen, 2),
)


def tell(w: World, quiet: float = 0.0) -> str:
    """One event's sentence; with probability `quiet` only scenery."""
    if w.rng.random() < quiet:
        return scenery(w)
    event = w.rng.choices([e for e, _ in WEIGHTED], [n for _, n in WEIGHTED])[0]
    return event(w) or move(w)
