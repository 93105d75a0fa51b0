"""`rwkv sessions`: the talks that are kept."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

sessions = typer.Typer(
    help="List, show, export and delete the talks that are kept.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="Name of a talk, as the list shows it.")]


@sessions.callback()
def _begin(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show_all()


@sessions.command("list")
def show_all() -> None:
    """List them, the last one first."""
    from rwkv_engine.chat import Store

    infos = Store().infos()
    width = max((len(info.name) for info in infos), default=0)
    for info in infos:
        when = datetime.fromtimestamp(info.changed).strftime("%Y-%m-%d %H:%M")
        model = info.settings.get("model")
        typer.echo(
            f"{info.name:<{width}}  {when}  {info.turns:>4} turns  {info.tokens:>8,} tokens  {model or 'embedded model'}"
        )


@sessions.command()
def show(name: Name) -> None:
    """Print what was said in one."""
    from rwkv_engine.chat import Store

    store = Store()
    for turn in store.turns(store.info(name)):
        told = [("system", turn.system)] if turn.system else []
        for side, text in (*told, ("user", turn.user), ("assistant", turn.answer)):
            typer.echo(f"{side}: {text}")
        typer.echo()


@sessions.command()
def export(
    name: Name,
    form: Annotated[str, typer.Option("--format", help="markdown or json.")] = "markdown",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; default: standard output.")
    ] = None,
) -> None:
    """Write one as Markdown or JSON."""
    from rwkv_engine.chat import Store, as_json, as_markdown
    from rwkv_engine.errors import OptionError
    from rwkv_engine.system.files import write_whole

    forms = {"markdown": as_markdown, "md": as_markdown, "json": as_json}
    if form not in forms:
        raise OptionError(f"--format: got {form!r}, want markdown or json")
    store = Store()
    info = store.info(name)
    text = forms[form](info, store.turns(info)).rstrip("\n") + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        write_whole(output, [text.encode("utf-8")])
    except OSError as error:
        raise OptionError(f"--output {output}: {error.strerror or error}") from None


@sessions.command()
def delete(names: Annotated[list[str], typer.Argument(help="Names of talks.")]) -> None:
    """Delete some, and the states that no other talk shares."""
    from rwkv_engine.chat import Store

    store = Store()
    for name in names:
        store.info(name)  # a name that is wrong deletes nothing
    for name in dict.fromkeys(names):
        store.delete(name)
    store.collect()
