"""`rwkv cache`: what the caches hold, and clearing them."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rwkv_engine_cli.options import Json
from rwkv_engine_cli.output import echo, tell
from rwkv_engine_cli.tables import print_rows

cache = typer.Typer(
    rich_markup_mode=None,
    help="Show the sizes of the caches: compiled programs, quantized models, states behind prompts.",
)


@cache.callback(invoke_without_command=True)
def _begin(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        show_all(as_json)


@cache.command("ls", hidden=True)
@cache.command("list")
def show_all(as_json: Json = False) -> None:
    """List the caches: name, size, files, what they hold."""
    from rwkv_engine.library.caches import caches
    from rwkv_engine.numbers.sizes import size
    from rwkv_engine.system.folders import cache_folder

    found = caches()
    if as_json:
        echo(json.dumps([asdict(one) for one in found]))
        return
    rows = [("name", "size", "files", "holds")]
    print_rows(
        [*rows, *((one.name, size(one.bytes), f"{one.files:,}", one.holds) for one in found)], heads=True
    )
    tell(f"{size(sum(one.bytes for one in found))} in {cache_folder()}; `rwkv cache clear` deletes them")


@cache.command("rm", hidden=True)
@cache.command()
def clear(
    names: Annotated[
        list[str] | None, typer.Argument(help="compiled, quantized or prefixes; default: all.")
    ] = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Delete what the caches hold, after a question. It is made again when it is needed."""
    from rwkv_engine.errors import OptionError
    from rwkv_engine.library.caches import KINDS, caches
    from rwkv_engine.library.caches import clear as delete
    from rwkv_engine.numbers.sizes import size

    wanted = dict.fromkeys(names or KINDS)
    for name in wanted:
        if name not in KINDS:
            raise OptionError.of("rwkv cache clear", name, f"one of {', '.join(KINDS)}")
    told = size(sum(one.bytes for one in caches() if one.name in wanted))
    if not yes:
        if not sys.stdin.isatty():
            raise OptionError("rwkv cache clear: there is nobody to ask; give --yes")
        typer.confirm(f"Delete {told} of {', '.join(wanted)}?", abort=True)
    for name in wanted:
        delete(name)
    tell(f"deleted {told}")
