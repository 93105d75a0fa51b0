"""Does a story contradict itself? Reads the sentences of generated prose back and holds them against one
another.

    python -m rwkv_engine_weights.recipe.consistency --count 100 --temperature 0.8

Checked: names (only the two the story introduced act in it, and not one person as two), he and she, the
colour of an object, and who has it: nobody gives away, loses or is given back what he or she does not have.
"""

import argparse
import re

from .world import BOYS, COLOURS, GIRLS, OBJECTS

NAMES = GIRLS + BOYS
_name = f"({'|'.join(NAMES)})"
_thing = f"(?:(?:{'|'.join(COLOURS)}) )?({'|'.join(OBJECTS)})"
_COLOURED = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(OBJECTS)})\b")
_HERO = re.compile(rf"(girl|boy) (?:named|whose name was) {_name}\b")
_MET = re.compile(rf"met (?:her friend |his friend )?{_name}\b")
_HAS = re.compile(rf"{_name} (?:had a|loved her|loved his) {_thing}\b")
_HERO_HAS = re.compile(rf"^(?:She|He) had a {_thing}\b")
_GIVES = (
    re.compile(rf"{_name} (?:gave|brought) the {_thing} (?:back )?to {_name}\b"),
    re.compile(rf"{_name} gave {_name} the {_thing}\b"),
)
_NOW_HAS = re.compile(rf"\b{_name} had the {_thing}\b")
_LOST = re.compile(rf"{_name} lost the {_thing}\b")
_GONE = re.compile(rf"the {_thing} was gone")
_FOUND = re.compile(rf"{_name} looked in the \w+ and found the {_thing}\b")
_TOOK = re.compile(rf"{_name} (?:took the|went to the \w+ with the) {_thing}\b")
_YOUR = re.compile(rf'"Your {_thing} is nice," said {_name}|{_name} said: "I like your {_thing}')


def contradictions(story: str) -> list[str]:
    """One sentence for each contradiction in `story`; none for a story that holds together."""
    reader = _Reader()
    for sentence in re.split(r'(?<=[.!?])"?\s+', story.strip()):
        reader.read(sentence)
    return reader.found


class _Reader:
    """What a story has said so far, and what it has said wrong."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.people: list[str] = []
        self.owner: dict[str, str | None] = {}
        self.colour: dict[str, str] = {}

    def read(self, sentence: str) -> None:
        """Hold one sentence against what was said, then believe it."""
        self._people(sentence)
        self._colours(sentence)
        self._owners(sentence)

    def _people(self, sentence: str) -> None:
        hero = _HERO.search(sentence)
        if hero and not self.people:
            self.people.append(hero[2])
            if (hero[2] in GIRLS) != (hero[1] == "girl"):
                self.found.append(f"{hero[2]} is called a {hero[1]}: {sentence}")
        met = _MET.search(sentence)
        if met and self.people:
            if met[1] == self.people[0]:
                self.found.append(f"{met[1]} meets {met[1]}: {sentence}")
            elif len(self.people) == 1:
                self.people.append(met[1])
        for name in re.findall(rf"\b{_name}\b", sentence):
            if self.people and name not in self.people:
                self.found.append(f"{name} was never introduced: {sentence}")
        pronoun = re.match(r"(She|He) (?:had|played)\b|In the \w+ (she|he) met", sentence)
        if (
            pronoun
            and self.people
            and ((pronoun[1] or pronoun[2]).lower() == "she") != (self.people[0] in GIRLS)
        ):
            self.found.append(f"wrong pronoun for {self.people[0]}: {sentence}")
        own = re.search(rf"{_name} loved (her|his)|(her|his) friend", sentence)
        if own and self.people and ((own[2] or own[3]) == "her") != ((own[1] or self.people[0]) in GIRLS):
            self.found.append(f"wrong pronoun: {sentence}")

    def _colours(self, sentence: str) -> None:
        for colour, thing in _COLOURED.findall(sentence):
            if self.colour.setdefault(thing, colour) != colour:
                self.found.append(f"the {thing} was {self.colour[thing]}: {sentence}")

    def _owners(self, sentence: str) -> None:
        if has := _HAS.search(sentence):
            self.owner[has[2]] = has[1]
        elif (has := _HERO_HAS.search(sentence)) and self.people:
            self.owner[has[1]] = self.people[0]
        for took in _TOOK.finditer(sentence):
            self._must_have(took[1], took[2], sentence)
        if lost := _LOST.search(sentence):
            self._must_have(lost[1], lost[2], sentence)
            self.owner[lost[2]] = None
        if gone := _GONE.search(sentence):
            self._known(gone[1], sentence)
            self.owner[gone[1]] = None
        if found := _FOUND.search(sentence):
            self._known(found[2], sentence)
            if self.owner.get(found[2]) is not None:
                self.found.append(f"the {found[2]} was not lost: {sentence}")
            self.owner[found[2]] = found[1]
        given = [(m[1], m[2], m[3]) for m in _GIVES[0].finditer(sentence)] + [
            (m[1], m[3], m[2]) for m in _GIVES[1].finditer(sentence)
        ]
        for giver, thing, taker in given:
            self._must_have(giver, thing, sentence)
            self.owner[thing] = taker
        for now in _NOW_HAS.finditer(sentence):
            self._must_have(now[1], now[2], sentence)
        if your := _YOUR.search(sentence):
            thing, speaker = your[1] or your[4], your[2] or your[3]
            self._known(thing, sentence)
            if self.owner.get(thing) == speaker:
                self.found.append(f"{speaker} speaks of an own {thing} as another's: {sentence}")

    def _known(self, thing: str, sentence: str) -> None:
        if thing not in self.owner:
            self.found.append(f"no {thing} was ever told of: {sentence}")

    def _must_have(self, name: str, thing: str, sentence: str) -> None:
        if self.owner.get(thing) != name:
            self.found.append(f"{name} does not have the {thing}: {sentence}")


def count_contradicting(count: int, temperature: float, source: str | None = None) -> tuple[int, list[str]]:
    """(how many of `count` stories contradict themselves, what they say wrong); seeds 0, 1, 2 ..."""
    import rwkv_engine

    model = rwkv_engine.load(source)
    bad, found = 0, []
    for seed in range(count):
        sampling = rwkv_engine.Sampling(temperature=temperature, top_p=1.0, seed=seed)
        steps = model.generate("Once upon a time", max_tokens=300, sampling=sampling)
        wrong = contradictions("Once upon a time" + "".join(step.text for step in steps))
        bad += bool(wrong)
        found += wrong
    return bad, found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a checkpoint; default: the embedded model")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=0.8)
    options = parser.parse_args()
    bad, found = count_contradicting(options.count, options.temperature, options.model)
    print(*found, sep="\n")
    print(f"{bad} of {options.count} stories contradict themselves at temperature {options.temperature}")


if __name__ == "__main__":
    main()
