"""The vocabulary: byte-level BPE of 2,048 entries, learned from the corpus and a list of common English
words.

python -m rwkv_engine_weights.recipe.vocabulary OUT.json --seed 1
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .common_words import COMMON_WORDS
from .corpus import document
from .world import BOYS, GIRLS

SIZE = 2048
END_OF_DOCUMENT = "<|endoftext|>"
#: a word with the space before it, a single digit, a run of line ends, a run of signs with the space before
#: it, other space
PIECE = r" ?[A-Za-z]+| ?[0-9]|\n+| ?[^\sA-Za-z0-9]+|\s"
DOCUMENTS = 6000


def texts(seed: int) -> Iterator[str]:
    """What the merges are learned from: names and common words first, then documents."""
    yield " ".join(GIRLS + BOYS)
    for _ in range(3):
        yield " " + " ".join(COMMON_WORDS)
    rng = Random(f"vocabulary {seed}")
    for _ in range(DOCUMENTS):
        yield "".join(text for text, _ in document(rng, "mixed"))


def train(seed: int) -> Tokenizer:
    """The tokenizer; the same one for the same seed. Id 0 ends a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(seed), trainer)
    return tokenizer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tokenizer = train(options.seed)
    tokenizer.save(str(options.out))
    print(f"{options.out}: {tokenizer.get_vocab_size()} entries")


if __name__ == "__main__":
    main()
