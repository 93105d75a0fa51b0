"""`rwkv bench`: measure a model on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import echo, progress


def bench(
    model: o.ModelArgument = None,
    named: o.Source = None,
    weights: o.Weights = None,
    threads: o.Threads = None,
    tokens: Annotated[int, typer.Option(help="Tokens decoded in each trial.")] = 64,
    prompt: Annotated[
        list[int] | None, typer.Option(help="Length of a prompt to read; may be given again.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials of each figure; medians are shown.")] = 5,
    draft: Annotated[
        str | None,
        typer.Option(
            help="Also measure drafts on text that repeats: ngram, or a small model of the same vocabulary."
        ),
    ] = None,
    as_json: o.Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a table to paste into an issue, without names.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw a picture into this PNG file.")] = None,
    share: Annotated[
        Path | None,
        typer.Option(help="Also write the run, without names, to this JSON file, and show its row."),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Show the figures beside those of an earlier --json run.")
    ] = None,
) -> None:
    """Measure memory bandwidth, speed, start time and memory of a model on this machine.

    Do not use the machine for other things meanwhile.
    """
    import rwkv_engine
    from rwkv_engine.bench import Report, compared, measure, table
    from rwkv_engine.bench.report import markdown as as_markdown
    from rwkv_engine.bench.report import markdown_row, shared

    forms = {"--json": as_json, "--markdown": markdown, "--compare": compare is not None}
    given = [name for name, asked in forms.items() if asked]
    if len(given) > 1:
        raise rwkv_engine.OptionError(f"got {' and '.join(given)}; give one of them")
    other = Report.of_file(compare) if compare else None
    report = measure(
        o.source(model, named),
        weights,
        threads,
        tokens=tokens,
        prompts=prompt or (16, 64, 256, 512),
        trials=trials,
        draft=draft,
        tell=lambda line: progress(f"{line} ..."),
    )
    progress("", last=True)
    if as_json:
        echo(report.json())
    elif markdown:
        echo(as_markdown(report))
    else:
        echo(compared(report, other) if other else table(report))
    if share is not None:
        o.write_text(share, shared(report).json() + "\n", "--share")
        echo(markdown_row(report), err=as_json)
    if plot is not None:
        from rwkv_engine.bench.plot import plot as draw

        draw(report, plot)
