"""`rwkv models`: the models that have short names."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rwkv_engine.library.registry import Record

models = typer.Typer(
    rich_markup_mode=None, help="List the models that `rwkv pull` has fetched, or remove one."
)


@models.callback(invoke_without_command=True)
def listing(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the registered models: name, family, size, format, path."""
    if context.invoked_subcommand is not None:
        return
    import sys

    from rwkv_engine.errors import CheckpointError
    from rwkv_engine.library import registry
    from rwkv_engine.numbers.sizes import size

    found: list[Record] = []
    for name in registry.names():
        try:
            found.append(registry.record(name))
        except CheckpointError as error:
            print(f"rwkv: {error}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps([asdict(one) | {"path": str(registry.path_of(one))} for one in found]))
        return
    rows = [("name", "family", "size", "format", "path")]
    rows += [(one.name, one.family, size(one.bytes), one.format, str(registry.path_of(one))) for one in found]
    if found:
        print_table(rows)
    else:
        typer.echo("no models yet; `rwkv pull` lists those it knows")
    downloads = registry.downloads_folder()
    begun = sum(file.stat().st_size for file in downloads.rglob("*") if file.is_file())
    if begun:
        typer.echo(
            f"unfinished downloads: {size(begun)} in {downloads}; pull again to go on, or delete the folder"
        )


@models.command()
def remove(name: Annotated[str, typer.Argument(help="Short name of the model.")]) -> None:
    """Forget a model and delete its files."""
    from rwkv_engine.library import registry

    registry.remove(name)
    typer.echo(f"removed {name}")


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Rows of equal length, the first being the heads, in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
