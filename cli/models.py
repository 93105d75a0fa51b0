"""`rwkv models`: the models that have short names, and the one that is used where none is named."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rwkv_engine_cli.options import Json, model_names
from rwkv_engine_cli.output import complain, echo, tell
from rwkv_engine_cli.tables import print_rows

if TYPE_CHECKING:
    from rwkv_engine.library.registry import Record

models = typer.Typer(
    rich_markup_mode=None,
    help="List the models that `rwkv pull` has fetched, remove one, or choose the default.",
)


@models.callback(invoke_without_command=True)
def listing(
    context: typer.Context,
    as_json: Json = False,
) -> None:
    """List the registered models: name, family, size, format, memory, path; * is the default."""
    if context.invoked_subcommand is None:
        show_all(as_json)


@models.command("ls", hidden=True)
@models.command("list")
def show_all(as_json: Json = False) -> None:
    """List them: name, family, size, format, memory, path; * is the default."""
    from rwkv_engine.errors import CheckpointError
    from rwkv_engine.library import registry
    from rwkv_engine.library.default_model import default_model
    from rwkv_engine.numbers.sizes import size
    from rwkv_engine.system.process import PROCESS, physical_memory

    found: list[Record] = []
    for name in registry.names():
        try:
            found.append(registry.record(name))
        except CheckpointError as error:
            complain(error)
    chosen, there = default_model(), physical_memory()
    # its files, and what the engine itself takes at most
    fits = {one.name: None if there is None else one.bytes + PROCESS <= there for one in found}
    if as_json:
        more = [
            {
                "path": str(registry.path_of(one)),
                "memory": one.bytes + PROCESS,
                "fits": fits[one.name],
                "default": one.name == chosen,
            }
            for one in found
        ]
        echo(json.dumps([asdict(one) | extra for one, extra in zip(found, more, strict=True)]))
        return
    rows = [("", "name", "family", "size", "format", "memory", "fits", "path")]
    for one in found:
        star, fit = "*" * (one.name == chosen), {True: "yes", False: "no", None: "unknown"}[fits[one.name]]
        path = str(registry.path_of(one))
        rows.append(
            (star, one.name, one.family, size(one.bytes), one.format, size(one.bytes + PROCESS), fit, path)
        )
    if found:
        print_rows(rows, heads=True)
        if there is not None:
            tell(f"this machine has {size(there)} of memory")
    else:
        tell("no models yet; `rwkv pull` lists those it knows")
    downloads = registry.downloads_folder()
    begun = sum(file.stat().st_size for file in downloads.rglob("*") if file.is_file())
    if begun:
        tell(f"unfinished downloads: {size(begun)} in {downloads}; pull again to go on, or delete the folder")


@models.command("rm", hidden=True)
@models.command()
def remove(
    name: Annotated[str, typer.Argument(help="Short name of the model.", autocompletion=model_names)],
) -> None:
    """Remove a model's short name and delete its files."""
    from rwkv_engine.library import registry
    from rwkv_engine.library.default_model import default_model, set_default

    registry.remove(name)
    if default_model() == name:
        set_default(None)
    tell(f"removed {name}")


@models.command("default")
def default(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Short name, file or folder; or the word embedded. Without it, the default is shown.",
            autocompletion=model_names,
        ),
    ] = None,
) -> None:
    """Choose the model that is used where none is named."""
    from rwkv_engine.library.default_model import default_model, set_default

    if name is not None:
        set_default(None if name == "embedded" else name)
    echo(default_model() or "embedded")
