"""`rwkv sessions`: saved conversations."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli.options import Json, session_names
from rwkv_engine_cli.output import complain, echo
from rwkv_engine_cli.tables import print_rows

sessions = typer.Typer(
    help="List, show, export and delete the conversations that are kept.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
Name = Annotated[
    str, typer.Argument(help="Name of a conversation, as the list shows it.", autocompletion=session_names)
]


@sessions.callback()
def _begin(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        show_all(as_json)


@sessions.command("ls", hidden=True)
@sessions.command("list")
def show_all(as_json: Json = False) -> None:
    """List saved conversations, the latest first."""
    from rwkv_engine.chat import Store

    infos = Store().infos()
    if as_json:
        echo(json.dumps([asdict(info) for info in infos]))
        return
    rows = []
    for info in infos:
        when = datetime.fromtimestamp(info.changed).strftime("%Y-%m-%d %H:%M")
        model = str(info.settings.get("model") or "embedded model")
        turns = f"{info.turns:>4} turn{'s' * (info.turns != 1)}"
        rows.append((info.name, when, turns, f"{info.tokens:>8,} tokens", model))
    if not rows:
        complain("no conversations yet; `rwkv chat` begins one and keeps it")
    print_rows(rows)


@sessions.command()
def show(name: Name) -> None:
    """Print one conversation."""
    from rwkv_engine.chat import Store

    store = Store()
    for turn in store.turns(store.info(name)):
        told = [("system", turn.system)] if turn.system else []
        for side, text in (*told, ("user", turn.user), ("assistant", turn.answer)):
            echo(f"{side}: {text}")
        echo()


@sessions.command()
def export(
    name: Name,
    form: Annotated[str, typer.Option("--format", help="markdown or json.")] = "markdown",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; default: standard output.")
    ] = None,
) -> None:
    """Write one conversation as Markdown or JSON."""
    from rwkv_engine.chat import Store, as_json, as_markdown
    from rwkv_engine.errors import OptionError
    from rwkv_engine.system.files import write_whole

    forms = {"markdown": as_markdown, "md": as_markdown, "json": as_json}
    if form not in forms:
        raise OptionError.of("--format", form, "markdown or json")
    store = Store()
    info = store.info(name)
    text = forms[form](info, store.turns(info)).rstrip("\n") + "\n"
    if output is None:
        echo(text, end="")
        return
    try:
        write_whole(output, [text.encode("utf-8")])
    except OSError as error:
        raise OptionError(f"--output {output}: {error.strerror or error}") from None


@sessions.command("rm", hidden=True)
@sessions.command()
def delete(
    names: Annotated[list[str], typer.Argument(help="Names of conversations.", autocompletion=session_names)],
) -> None:
    """Delete conversations, and the states that no other conversation shares."""
    from rwkv_engine.chat import Store

    store = Store()
    for name in names:
        store.info(name)  # a name that is wrong deletes nothing
    for name in dict.fromkeys(names):
        store.delete(name)
    store.collect()
