"""`rwkv prune`: a checkpoint without the hidden units that matter least on a text."""

from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import complain, progress, tell
from rwkv_engine_cli.tables import print_rows


def prune(
    source: Annotated[str, typer.Argument(help="Model file, folder, or short name; or the word embedded.")],
    target: Annotated[Path, typer.Argument(help="File to write, such as model-pruned.safetensors.")],
    ffn: Annotated[
        float, typer.Option(help="Share of the channel mix's hidden units to remove, such as 0.3.")
    ],
    text: Annotated[
        str,
        typer.Option(
            help="UTF-8 text on which the units are chosen, .jsonl with a document a line, or the word embedded."
        ),
    ],
    check: Annotated[
        str | None, typer.Option(help="Another text, on which the loss is measured too.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Read at most this many tokens of each text.")] = 100_000,
    threads: o.Threads = None,
    force: o.Force = False,
) -> None:
    """Write a smaller checkpoint without the hidden units that matter least on a text; the others are
    refitted.
    """
    import rwkv_engine

    done = rwkv_engine.prune(
        None if source == "embedded" else source,
        target,
        ffn=ffn,
        text=text,
        check=check,
        tokens=tokens,
        threads=threads,
        force=force,
        tell=lambda line: progress(f"{line} ..."),
    )
    progress("", last=True)
    rows = [("text", "bits a byte before", "after", "mean KL")]
    rows += [(one.text, f"{one.before:.4f}", f"{one.after:.4f}", f"{one.kl:.1e}") for one in done.losses]
    print_rows(rows, heads=True)
    tell(f"{target}: {done.kept} of {done.units} hidden units in each layer, {target.stat().st_size:,} bytes")
    if done.warning is not None:
        complain(done.warning)
