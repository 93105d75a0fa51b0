"""`rwkv bench`: measure a model on this machine."""

import itertools
from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import echo, progress
from rwkv_engine_cli.tables import print_rows


def bench(
    model: o.ModelArgument = None,
    named: o.Source = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Weight format; several, given again or as int8,int4, are measured one by one."),
    ] = None,
    threads: Annotated[
        list[str] | None,
        typer.Option(
            help="Threads; several, given again or as 1,2, are measured one by one.", metavar="NUMBER"
        ),
    ] = None,
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
    dark: Annotated[bool, typer.Option("--dark", help="Draw the picture on a dark ground.")] = False,
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
    from rwkv_engine.bench.report import beside_one_another, markdown_row, shared, title
    from rwkv_engine.bench.report import markdown as as_markdown

    forms = {"--json": as_json, "--markdown": markdown, "--compare": compare is not None}
    given = [name for name, asked in forms.items() if asked]
    if len(given) > 1:
        raise rwkv_engine.OptionError(f"got {' and '.join(given)}; give one of them")
    runs = list(itertools.product(_each(weights), [_number(word) for word in _each(threads)]))
    if compare and len(runs) > 1:
        raise rwkv_engine.OptionError(
            "--compare: it is for one run; give one format and one number of threads"
        )
    if plot is not None:
        _can_draw(plot)
    other = Report.of_file(compare) if compare else None
    reports, source = [], o.source(model, named)
    for number, (format, count) in enumerate(runs, start=1):
        which = f"run {number} of {len(runs)}: " if len(runs) > 1 else ""
        reports.append(
            measure(
                source,
                format,
                count,
                tokens=tokens,
                prompts=prompt or (16, 64, 256, 512),
                trials=trials,
                draft=draft,
                tell=lambda line, which=which: progress(f"{which}{line} ..."),  # type: ignore[misc]
            )
        )
    progress("")
    report = reports[0]
    if as_json:
        echo(report.json() if len(reports) == 1 else f"[{', '.join(one.json() for one in reports)}]")
    elif markdown:
        echo(as_markdown(reports))
    elif len(reports) > 1:
        echo("\n".join([*title(report).splitlines(), ""]))
        print_rows(beside_one_another(reports), heads=True)
        echo("± is the median deviation of the trials.")
    else:
        echo(compared(report, other) if other else table(report))
    if share is not None:
        texts = [shared(one).json() for one in reports]
        o.write_text(share, (texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]") + "\n", "--share")
        for one in reports:
            echo(markdown_row(one), err=as_json)
    if plot is not None:
        from rwkv_engine.bench.plot import plot as draw

        draw(reports, plot, dark)


def _each(words: list[str] | None) -> list[str | None]:
    """The values of an option that may be given again, or with commas; one None for none."""
    found = [part.strip() for word in words or [] for part in word.split(",") if part.strip()]
    return list(dict.fromkeys(found)) or [None]


def _number(word: str | None) -> int | None:
    from rwkv_engine import OptionError

    if word is not None and not word.isdecimal():
        raise OptionError.of("--threads", word, "a whole number of 1 or more")
    return None if word is None else int(word)


def _can_draw(path: Path) -> None:
    """Raises OptionError or MissingExtra before anything is measured."""
    from importlib.util import find_spec

    from rwkv_engine import OptionError
    from rwkv_engine.system.extras import missing

    if path.suffix.lower() != ".png":
        raise OptionError.of("--plot", str(path), "a file whose name ends in .png")
    if not path.expanduser().parent.is_dir():
        raise OptionError(f"--plot {path}: there is no folder {path.parent}")
    if find_spec("matplotlib") is None:
        raise missing("--plot", "plot", "matplotlib")
