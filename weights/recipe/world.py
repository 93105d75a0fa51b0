"""The little world: who and what there is, and what is true at a moment of a text.

Everything is drawn from a random.Random that the caller passes, so a seed is a text.
"""

from dataclasses import dataclass, field
from random import Random

GIRLS = ("Mia", "Lily", "Anna", "Emma", "Zoe", "Nora", "Ella", "Ruth", "Ivy", "Clara", "Rosa", "Tina")
BOYS = ("Tom", "Ben", "Max", "Leo", "Sam", "Jack", "Finn", "Paul", "Oscar", "Noah", "Hugo", "Tim")
PLACES = (
    "kitchen",
    "garden",
    "park",
    "school",
    "shop",
    "barn",
    "forest",
    "library",
    "cave",
    "tower",
    "castle",
    "cellar",
    "village",
    "attic",
)
OBJECTS = (
    "ball",
    "book",
    "key",
    "hat",
    "lamp",
    "cup",
    "drum",
    "kite",
    "bell",
    "coat",
    "map",
    "ring",
    "rope",
    "spoon",
    "basket",
    "flute",
    "doll",
    "knife",
    "mirror",
    "clock",
)
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "pink")
PETS = ("cat", "dog", "bird", "horse", "rabbit", "mouse", "goat", "duck")
THINGS = ("apple", "coin", "shell", "nut", "stone", "button", "pear", "stamp")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HAPPENINGS = (
    "the bell rang",
    "the dog barked",
    "the rain began",
    "the door fell shut",
    "the lamp went out",
    "the baby cried",
    "the sun came out",
    "a glass broke",
    "the train left",
    "the snow fell",
    "a bird sang",
    "the wind rose",
)
SCENERY = (
    "The sky was clear.",
    "It was a warm day.",
    "The grass was wet.",
    "A soft wind blew.",
    "The birds were singing.",
    "It was getting late.",
    "The road was long.",
    "Leaves lay on the ground.",
    "There was a smell of bread.",
    "The clouds were high and thin.",
    "Somebody laughed far away.",
    "The trees were old.",
    "A small stream ran by.",
    "The light was golden.",
    "Nobody was in a hurry.",
    "The air was cold and fresh.",
    "Far away a clock struck.",
    "The flowers were open.",
    "It had rained at night.",
    "Everything was quiet.",
)


def plural(thing: str, number: int) -> str:
    """The thing, in the number it is counted in."""
    return thing if number == 1 else thing + "s"


@dataclass
class World:
    """What is true now. Keys are names, objects, or (name, thing)."""

    rng: Random
    people: list[str]
    where: dict[str, str] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    owner: dict[str, str] = field(default_factory=dict)
    colour: dict[str, str] = field(default_factory=dict)
    pet: dict[str, str] = field(default_factory=dict)
    favourite: dict[str, str] = field(default_factory=dict)
    count: dict[tuple[str, str], int] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    told: dict[tuple[str, object], int] = field(default_factory=dict)

    @classmethod
    def drawn(cls, rng: Random, people: int) -> "World":
        """A world with so many people in it of whom nothing is known."""
        return cls(rng, rng.sample(GIRLS + BOYS, people))
