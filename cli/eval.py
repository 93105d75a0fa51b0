"""`rwkv eval`: the quality of models on texts and tasks, beside their cost."""

from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import echo, progress
from rwkv_engine_cli.tables import print_rows


def eval(
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Model files, folders, or short names; default: $RWKV_MODEL, else `rwkv models default`.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="UTF-8 text to read, .jsonl with a document a line, or the word embedded; may be given again."
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="Questions as JSON lines, or the word embedded; may be given again."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Reference to compare with: a model, or a format such as f32 for each model's own."
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Weight format; may be given again: a row for each; default: the checkpoint's own."
        ),
    ] = None,
    threads: o.Threads = None,
    tokens: Annotated[int | None, typer.Option(help="Read at most this many tokens of each text.")] = None,
    items: Annotated[int | None, typer.Option(help="Ask at most this many questions of each task.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Store results in this folder, and continue from there next time.")
    ] = None,
    no_cache: o.NoCache = False,
    as_json: o.Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw a picture into this PNG file.")] = None,
) -> None:
    """Measure the quality of models on texts and tasks, beside the bytes, memory and time that they take."""
    import rwkv_engine
    from rwkv_engine.evaluation import report

    if as_json and markdown:
        raise rwkv_engine.OptionError("got --json and --markdown; give one of them")
    rows = rwkv_engine.evaluate(
        [o.source(name) for name in model] if model else o.source(None),
        texts=text or (),
        tasks=tasks or (),
        weights=weights or None,
        against=against,
        threads=threads,
        tokens=tokens,
        items=items,
        resume=resume,
        cache=not no_cache,
        tell=lambda line: progress(f"{line} ..."),
    )
    progress("", last=True)
    if as_json:
        echo(report.as_json(rows))
    elif markdown:
        echo(report.markdown(rows))
    else:
        print_rows(report.table(rows), heads=True)
    if plot is not None:
        from rwkv_engine.evaluation.plot import plot as draw

        draw(rows, plot)
