"""The last step of the embedded model: it learns with 1,024 hidden units in each channel mix, and half of them go.

    python -m rwkv_engine_weights.recipe.smaller whole/model.safetensors --out my-model

Writes texts of the grammar, then does what `rwkv prune` does: it takes away the units that matter least on them,
and fits `ffn.value` anew. The loss is measured on the texts, and on others that are held out.
"""

import argparse
from functools import partial
from pathlib import Path
from random import Random

from .draft import write_documents

SHARE = 0.5
#: tokens that are read, and letters that are written
TOKENS, LETTERS = 200_000, 1_200_000
#: how often each mix is drawn: all that the model learned from
MIXES = {"stories": 3, "talk": 4, "recall": 2, "mixed": 2, "far": 2, "short": 1, "long": 1, "pairs": 1}


def smaller(whole: Path, folder: Path, seed: int, share: float = SHARE) -> None:
    """Write `folder`/model.safetensors, and the texts on which the units are chosen, prune.jsonl."""
    import rwkv_engine

    text = folder / "prune.jsonl"
    write_documents(text, Random(f"prune {seed}"), LETTERS, MIXES)
    done = rwkv_engine.prune(
        whole,
        folder / "model.safetensors",
        ffn=share,
        text=text,
        check="embedded",
        tokens=TOKENS,
        force=True,
        tell=partial(print, flush=True),
    )
    for loss in done.losses:
        print(
            f"{loss.text}: {loss.before:.5f} bits a byte before, {loss.after:.5f} after; mean KL {loss.kl:.1e}"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("whole", type=Path, help="the trained model, with its tokenizer beside it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=SHARE, help="of the hidden units that go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    smaller(options.whole, options.out, options.seed, options.share)


if __name__ == "__main__":
    main()
