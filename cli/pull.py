"""`rwkv pull`: a model from the hub to a short name."""

import sys
from typing import Annotated

import typer
from rwkv_engine_cli import options as o


def pull(
    source: Annotated[
        str | None,
        typer.Argument(help="Known name, owner/repo:file, or owner/repo; default: list the known names."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Short name to register; default: the known name, or the repository's.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="int8 (default), or keep: as it was published.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Pull it though memory or disk seem too small.")
    ] = False,
    tokenizer: o.TokenizerOption = None,
) -> None:
    """Download a model, check it, quantize it, and give it a short name for -m. Broken downloads are resumed."""
    if source is None:
        _list_known()
        return
    from rwkv_engine.formats import DEFAULT
    from rwkv_engine.library.pull import pull as fetch

    shown = sys.stderr.isatty()
    record = fetch(
        source,
        name=name,
        format=format or DEFAULT,
        force=force,
        tokenizer=tokenizer,
        say=lambda line: print(f"rwkv: {line}", file=sys.stderr, flush=True),
        progress=_show_progress if shown else None,
    )
    typer.echo(
        f"{record.name}: {record.family}, {record.format}, {record.bytes:,} bytes; use it with -m {record.name}"
    )


def _show_progress(done: int, total: int) -> None:
    print(
        f"\rquantizing {100 * done // max(total, 1):3d} %",
        end="\n" if done >= total else "",
        file=sys.stderr,
        flush=True,
    )


def _list_known() -> None:
    """The table of known models, with what they take."""
    from rwkv_engine_cli.models import print_table

    from rwkv_engine.formats import DEFAULT
    from rwkv_engine.library.footprint import KEEP
    from rwkv_engine.library.known_models import KNOWN
    from rwkv_engine.numbers.sizes import size

    rows = [("name", "download", f"{DEFAULT} on disk", f"{DEFAULT} in memory", "keep in memory", "file")]
    for row in KNOWN:
        packed, kept = row.footprint(DEFAULT), row.footprint(KEEP)
        rows.append(
            (row.name, size(row.bytes), size(packed.file), size(packed.memory), size(kept.memory), row.file)
        )
    print_table(rows)
