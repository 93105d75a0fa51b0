"""Makes the draft of the embedded model: a student of a seventh of its size, on texts of the same grammar.

    python -m rwkv_engine_weights.recipe.draft --out my-draft

Writes the texts, then does what `rwkv distill` does. With --control the same student learns from the texts
alone, without a teacher, to compare. Called again it goes on where it stopped.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from random import Random

from .corpus import document

LAYERS, WIDTH = 4, 64
#: rows and tokens of a row in a step
SHAPE = 2, 384
TOKENS = 2_500_000
#: files in the order in which they are read: name, letters, how often each mix is drawn. Pairs come first, as
#: for the teacher: they teach to look things up by name.
PARTS: tuple[tuple[str, int, dict[str, int]], ...] = (
    ("pairs", 2_500_000, {"pairs": 1}),
    ("recall", 4_000_000, {"recall": 2, "short": 2, "pairs": 1}),
    ("all", 13_000_000, {"stories": 3, "talk": 4, "recall": 2, "mixed": 2, "far": 1, "pairs": 1}),
)


def write_documents(path: Path, rng: Random, letters: int, mixes: dict[str, int]) -> None:
    """Write documents into a .jsonl file, one a line, until it has so many letters; a file that is there stays."""
    written, part = 0, path.with_suffix(".part")
    if path.exists():
        return
    with open(part, "w", encoding="utf-8") as file:
        while written < letters:
            mix = rng.choices(list(mixes), list(mixes.values()))[0]
            text = "".join(piece for piece, _ in document(rng, mix))
            file.write(json.dumps({"text": text}) + "\n")
            written += len(text)
    part.replace(path)


def write_texts(folder: Path, seed: int) -> list[Path]:
    """The files of PARTS, a document a line; those that are there stay."""
    paths = [folder / f"{name}.jsonl" for name, _, _ in PARTS]
    for path, (name, letters, mixes) in zip(paths, PARTS, strict=True):
        write_documents(path, Random(f"draft {name} {seed}"), letters, mixes)
    return paths


def main() -> None:
    """Command line."""
    import rwkv_engine

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--control", action="store_true", help="learn without the teacher")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    course = rwkv_engine.Course(
        tokens=options.tokens,
        rows=SHAPE[0],
        length=SHAPE[1],
        seed=options.seed,
        truth=float(options.control),
        fresh=options.control,
    )
    done = rwkv_engine.distill(
        None,
        options.out / ("control.safetensors" if options.control else "draft.safetensors"),
        layers=LAYERS,
        width=WIDTH,
        text=write_texts(options.out, options.seed),
        course=course,
        weights=None if options.control else "int8",
        threads=options.threads,
        tell=partial(print, flush=True),
    )
    print(f"{done.parameters:,} parameters")


if __name__ == "__main__":
    main()
