"""Makes the embedded model again, from nothing but this folder:

    pip install .[train]
    python -m rwkv_engine_weights.recipe.make --seed 1 --out my-model

Vocabulary, training (hours on a laptop; it goes on where it stopped), export to my-model/whole, and the model
without the half of its hidden units. Then `evaluate --model my-model/model.safetensors`.
"""

import argparse
from pathlib import Path

from .export import export
from .smaller import smaller
from .train import TOKENS, train
from .vocabulary import train as train_vocabulary


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument(
        "--bf16", action="store_true", help="multiply matrices in BF16: a third faster on processors that can"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer, whole = train_vocabulary(options.seed), options.out / "whole" / "model.safetensors"
    whole.parent.mkdir(exist_ok=True)
    tokenizer.save(str(whole.parent / "tokenizer.json"))
    train(options.out / "run", tokenizer, options.seed, options.tokens, options.bf16)
    print(f"{whole}: {export(options.out / 'run', whole):,} parameters")
    smaller(whole, options.out, options.seed)


if __name__ == "__main__":
    main()
