"""`rwkv models`: the models that have short names."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rwkv_engine_cli.options import Json
from rwkv_engine_cli.output import complain, echo
from rwkv_engine_cli.tables import print_rows

if TYPE_CHECKING:
    from rwkv_engine.library.registry import Record

models = typer.Typer(
    rich_markup_mode=None, help="List the models that `rwkv pull` has fetched, or remove one."
)


@models.callback(invoke_without_command=True)
def listing(
    context: typer.Context,
    as_json: Json = False,
) -> None:
    """List the registered models: name, family, size, format, path."""
    if context.invoked_subcommand is None:
        show_all(as_json)


@models.command("ls", hidden=True)
@models.command("list")
def show_all(as_json: Json = False) -> None:
    """List them: name, family, size, format, path."""
    from rwkv_engine.errors import CheckpointError
    from rwkv_engine.library import registry
    from rwkv_engine.numbers.sizes import size

    found: list[Record] = []
    for name in registry.names():
        try:
            found.append(registry.record(name))
        except CheckpointError as error:
            complain(error)
    if as_json:
        echo(json.dumps([asdict(one) | {"path": str(registry.path_of(one))} for one in found]))
        return
    rows = [("name", "family", "size", "format", "path")]
    rows += [(one.name, one.family, size(one.bytes), one.format, str(registry.path_of(one))) for one in found]
    if found:
        print_rows(rows, heads=True)
    else:
        echo("no models yet; `rwkv pull` lists those it knows")
    downloads = registry.downloads_folder()
    begun = sum(file.stat().st_size for file in downloads.rglob("*") if file.is_file())
    if begun:
        echo(f"unfinished downloads: {size(begun)} in {downloads}; pull again to go on, or delete the folder")


@models.command("rm", hidden=True)
@models.command()
def remove(name: Annotated[str, typer.Argument(help="Short name of the model.")]) -> None:
    """Remove a model's short name and delete its files."""
    from rwkv_engine.library import registry

    registry.remove(name)
    echo(f"removed {name}")
