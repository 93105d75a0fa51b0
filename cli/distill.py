"""`rwkv distill`: a smaller model that learns from a larger one."""

from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import progress, tell


def distill(
    teacher: Annotated[str, typer.Argument(help="Model file, folder, or short name; or the word embedded.")],
    target: Annotated[Path, typer.Argument(help="File to write, such as student.safetensors.")],
    layers: Annotated[int, typer.Option(help="Layers of the student.")],
    width: Annotated[int, typer.Option(help="Its width: a multiple of 64, at most the teacher's.")],
    text: Annotated[
        list[Path],
        typer.Option(help="UTF-8 text, or .jsonl with a document a line; may be given again: read in order."),
    ],
    ffn: Annotated[
        int | None, typer.Option(help="Hidden units of its channel mix; default: 4 times the width.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Tokens to learn from; default: each of the text once.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows of text in a step.")] = 6,
    length: Annotated[int, typer.Option(help="Tokens of a row.")] = 256,
    temperature: Annotated[float, typer.Option(help="Divides both distributions.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Likeliest tokens of the teacher that are told apart.")] = 64,
    hidden: Annotated[float, typer.Option(help="Weight of the distance between hidden states.")] = 0.0,
    truth: Annotated[
        float, typer.Option(help="Share of the loss that is the text's own next token; 1: no teacher.")
    ] = 0.0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin with random numbers.")] = False,
    rate: Annotated[float, typer.Option(help="Largest learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of the first numbers and of the order of the text.")] = 1,
    bf16: Annotated[bool, typer.Option("--bf16", help="Multiply matrices in BF16.")] = False,
    weights: o.Weights = None,
    threads: o.Threads = None,
    device: Annotated[str, typer.Option(help="Where torch multiplies matrices: cpu, cuda ...")] = "cpu",
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints; default: TARGET.training, deleted at the end."),
    ] = None,
    force: o.Force = False,
) -> None:
    """Train a smaller RWKV-7 to predict what another model predicts on a text; needs the extra train.

    A run that was stopped goes on where it was when it is started again.
    """
    import rwkv_engine

    course = rwkv_engine.Course(
        tokens, rows, length, temperature, top_k, hidden, truth, fresh, rate, seed, bf16
    )
    done = rwkv_engine.distill(
        None if teacher == "embedded" else teacher,
        target,
        layers=layers,
        width=width,
        text=text,
        ffn=ffn,
        course=course,
        weights=weights,
        threads=threads,
        device=device,
        resume=resume,
        force=force,
        tell=progress,
    )
    progress("", last=True)
    tell(
        f"{target}: {done.parameters:,} parameters of {done.teacher:,}, {target.stat().st_size:,} bytes, "
        f"{done.tokens:,} tokens"
    )
