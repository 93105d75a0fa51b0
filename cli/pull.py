"""`rwkv pull`: download a model from the hub and give it a short name."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import complain, echo, progress, tell
from rwkv_engine_cli.tables import print_rows

from rwkv_engine.errors import EngineError


def pull(
    source: Annotated[
        str | None,
        typer.Argument(help="Known name, owner/repo:file, or owner/repo; default: list the known names."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Short name to register; default: the known name, or the repository's.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="int8 (default), int5, int4, or keep: as it was published.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Pull it though memory or disk seem too small.")
    ] = False,
    tokenizer: o.TokenizerOption = None,
    as_json: o.Json = False,
) -> None:
    """Download a model, check it, quantize it, and give it a short name for -m.

    An interrupted download is resumed.
    """
    if source is None:
        _list_known(as_json)
        return
    from rwkv_engine.formats import DEFAULT
    from rwkv_engine.library.pull import pull as fetch

    record = fetch(
        source,
        name=name,
        format=DEFAULT if format is None else format,
        force=force,
        tokenizer=tokenizer,
        say=complain,
        progress=_show_progress if sys.stderr.isatty() else None,
    )
    if as_json:
        echo(json.dumps(asdict(record)))
        return
    tell(
        f"{record.name}: {record.family}, {record.format}, {record.bytes:,} bytes; use it with -m {record.name}"
    )


def offer(missing: EngineError) -> bool:
    """Offer to pull the model that an error says is not here; whether it is here now.

    Only for a name that is known, and only where a person can answer.
    """
    from rwkv_engine.library.known_models import known
    from rwkv_engine.library.pull import pull as fetch
    from rwkv_engine.numbers.sizes import size

    row = None if missing.name is None else known(missing.name)
    if row is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    if not typer.confirm(f"{row.name} is not here. Get it ({size(row.bytes)})?", err=True):
        return False
    fetch(row.name, say=complain, progress=_show_progress)
    return True


def _show_progress(done: int, total: int) -> None:
    progress(f"quantizing {100 * done // max(total, 1):3d} %", last=done >= total)


def _list_known(as_json: bool) -> None:
    """The table of known models, with their sizes."""
    from rwkv_engine.formats import DEFAULT
    from rwkv_engine.library.footprint import KEEP
    from rwkv_engine.library.known_models import KNOWN
    from rwkv_engine.numbers.sizes import size

    if as_json:
        sizes = (DEFAULT, KEEP)
        echo(
            json.dumps([asdict(row) | {name: asdict(row.footprint(name)) for name in sizes} for row in KNOWN])
        )
        return
    rows = [
        ("name", "download", f"{DEFAULT} on disk", f"{DEFAULT} in memory", "as published, in memory", "file")
    ]
    for row in KNOWN:
        packed, kept = row.footprint(DEFAULT), row.footprint(KEEP)
        rows.append(
            (row.name, size(row.bytes), size(packed.file), size(packed.memory), size(kept.memory), row.file)
        )
    print_rows(rows, heads=True)
