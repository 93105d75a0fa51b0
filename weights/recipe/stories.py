"""Plain prose: little stories in which names, pronouns, colours and owners always agree."""

from random import Random

from .world import BOYS, COLOURS, GIRLS, OBJECTS, PLACES, SCENERY


def story(rng: Random) -> list[str]:
    """One story as a list of sentences."""
    hero, friend = rng.sample(GIRLS + BOYS, 2)
    girl = hero in GIRLS
    kind, she, her = ("girl", "She", "her") if girl else ("boy", "He", "his")
    thing, tint = rng.choice(OBJECTS), rng.choice(COLOURS)
    home, far = rng.sample(PLACES, 2)
    mood = rng.choice(("brave", "kind", "clever", "little", "quiet", "happy"))
    out = [
        rng.choice(
            (
                f"Once upon a time there was a {mood} {kind} named {hero}.",
                f"Once upon a time there lived a {mood} {kind} named {hero}.",
                f"There once was a {kind} whose name was {hero}.",
            )
        )
    ]
    out.append(
        rng.choice(
            (
                f"{hero} had a {tint} {thing}.",
                f"{she} had a {tint} {thing}.",
                f"{hero} loved {her} {tint} {thing}.",
            )
        )
    )
    if rng.random() < 0.5:
        out.append(
            rng.choice((f"{she} played in the {home} every day.", f"Every day {hero} played in the {home}."))
        )
    out.append(
        rng.choice(
            (
                f"One day {hero} went to the {far} with the {tint} {thing}.",
                f"One day {hero} took the {tint} {thing} to the {far}.",
            )
        )
    )
    if rng.random() < 0.5:
        out.append(rng.choice(SCENERY))
    out.append(
        rng.choice((f"There {hero} met {her} friend {friend}.", f"In the {far} {she.lower()} met {friend}."))
    )
    out += rng.choice((_gift, _loss, _trade, _play))(rng, hero, friend, thing, tint, far)
    out.append(
        rng.choice(
            (
                f"{hero} and {friend} went home together.",
                f"{hero} and {friend} were good friends ever after.",
                f"Then {hero} and {friend} walked home.",
                f"That was a good day for {hero} and {friend}.",
            )
        )
    )
    if rng.random() < 0.4:
        out.append("The end.")
    return out


def _he(name: str) -> str:
    return "She" if name in GIRLS else "He"


def _gift(rng: Random, hero: str, friend: str, thing: str, tint: str, place: str) -> list[str]:
    """The hero gives the object away."""
    return [
        rng.choice(
            (
                f"{friend} was sad.",
                f"It was the birthday of {friend}.",
                f"{friend} liked the {tint} {thing} very much.",
            )
        ),
        rng.choice((f"{hero} gave the {thing} to {friend}.", f"So {hero} gave {friend} the {tint} {thing}.")),
        f"Now {friend} had the {tint} {thing}.",
        rng.choice(
            (
                f'"Thank you, {hero}!" said {friend}.',
                f"{friend} smiled and thanked {hero}.",
                f"{_he(friend)} was very happy.",
            )
        ),
    ]


def _loss(rng: Random, hero: str, friend: str, thing: str, tint: str, place: str) -> list[str]:
    """The object is lost, and found by the friend."""
    found = rng.choice([p for p in PLACES if p != place])
    return [
        rng.choice((f"But {hero} lost the {thing}.", f"But then the {tint} {thing} was gone.")),
        rng.choice((f"{_he(hero)} was very sad.", f'"Where is my {thing}?" cried {hero}.')),
        f"{friend} looked in the {found} and found the {tint} {thing}.",
        rng.choice(
            (
                f"{friend} gave the {thing} back to {hero}.",
                f"{friend} brought the {tint} {thing} back to {hero}.",
            )
        ),
        rng.choice((f'"Thank you, {friend}!" said {hero}.', f"{hero} was happy again.")),
    ]


def _trade(rng: Random, hero: str, friend: str, thing: str, tint: str, place: str) -> list[str]:
    """The two exchange what they have."""
    other = rng.choice([o for o in OBJECTS if o != thing])
    shade = rng.choice(COLOURS)
    return [
        f"{friend} had a {shade} {other}.",
        rng.choice((f'"Shall we trade?" asked {friend}.', f'{friend} asked: "May I have your {thing}?"')),
        f"{hero} gave the {thing} to {friend}, and {friend} gave the {other} to {hero}.",
        f"Now {hero} had the {shade} {other} and {friend} had the {tint} {thing}.",
    ]


def _play(rng: Random, hero: str, friend: str, thing: str, tint: str, place: str) -> list[str]:
    """The two play, and the object stays where it was."""
    return [
        rng.choice(
            (
                f"They played with the {tint} {thing} in the {place}.",
                f"They sat down in the {place} and looked at the {thing}.",
            )
        ),
        rng.choice(SCENERY),
        rng.choice(
            (f'"Your {thing} is nice," said {friend}.', f'{friend} said: "I like your {tint} {thing}."')
        ),
        f"In the evening {hero} took the {thing} and said goodbye.",
    ]
