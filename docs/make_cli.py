"""docs/cli.md from the command itself: every verb, its arguments and its options.

Only Typer's records of verbs and options are read, and no help page is formatted: the text is the same on
every terminal, Python, locale and version of Typer.
"""

import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rwkv_engine_cli.app import app
from typer.utils import get_params_from_function

HEAD = """\
# The command line

Every verb of `rwkv` with its arguments and options. `rwkv VERB --help` shows the same in a terminal.
This page is made from the program by `python docs/make.py`; do not edit it.
"""
#: how values of a type are written
VALUES: dict[Any, str] = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or an option: its name, the type of its value, and what Typer knows of it."""

    name: str
    kind: Any
    info: Any


@dataclass(frozen=True, slots=True)
class Verb:
    """What a person can call: its full name, its help, its arguments and options."""

    name: str
    help: str
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]


def page() -> str:
    """The whole page."""
    top, *verbs = all_verbs()
    index = "\n".join(
        f"* [`{one.name}`](#{one.name.replace(' ', '-')}): {first_sentence(one.help)}" for one in verbs
    )
    parts = [HEAD, index, "## Before the verb\n\n" + "\n".join(rows(top)), *map(section, verbs)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def all_verbs() -> list[Verb]:
    """Every verb, and `rwkv` itself with the options before the verb."""
    return [verb("rwkv", app.registered_callback), *leaves("rwkv", app)]


def leaves(name: str, group: typer.Typer) -> Iterator[Verb]:
    """The verbs of a group and of the groups inside it; a group that does something by itself is a verb too."""
    for found in group.registered_commands:
        if found.callback is not None and not found.hidden:
            yield verb(f"{name} {found.name or found.callback.__name__.replace('_', '-')}", found)
    for inner in group.registered_groups:
        child, full = inner.typer_instance, f"{name} {inner.name}"
        if child is None or inner.hidden is True:
            continue
        begin = child.registered_callback
        alone = begin is not None and True in (
            begin.invoke_without_command,
            child.info.invoke_without_command,
        )
        if alone:
            yield verb(full, begin, child.info.help)
        yield from leaves(full, child)


def verb(name: str, found: Any, help: Any = None) -> Verb:
    """A verb from Typer's record of it."""
    given = [text for text in (help, found.help) if isinstance(text, str)]
    text = given[0] if given else inspect.getdoc(found.callback) or ""
    params = [
        Parameter(one.name, bare(one.annotation), one.default)
        for one in get_params_from_function(found.callback).values()
        if isinstance(one.default, (typer.models.ArgumentInfo, typer.models.OptionInfo))
        and not one.default.hidden
    ]
    arguments = tuple(one for one in params if isinstance(one.info, typer.models.ArgumentInfo))
    options = tuple(one for one in params if isinstance(one.info, typer.models.OptionInfo))
    return Verb(name, text, arguments, options)


def bare(kind: Any) -> Any:
    """A parameter's type without Annotated and without None."""
    if hasattr(kind, "__metadata__"):
        return bare(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return bare(next(one for one in typing.get_args(kind) if one is not type(None)))
    return kind


def section(one: Verb) -> str:
    """One verb."""
    line = " ".join([one.name, *map(usage, one.arguments), *(["[OPTIONS]"] if one.options else [])])
    parts = [f"## {one.name}", f"```text\n{line}\n```", words(one.help), "\n".join(rows(one))]
    return "\n\n".join(part for part in parts if part)


def rows(one: Verb) -> Iterator[str]:
    """A list entry for each argument and option."""
    for argument in one.arguments:
        yield f"* `{usage(argument)}`: {described(argument)}"
    for option in one.options:
        yield f"* `{', '.join(names(option))}`: {described(option)}"


def many(param: Parameter) -> bool:
    """Whether it may be given more than once."""
    return typing.get_origin(param.kind) is list


def usage(param: Parameter) -> str:
    """An argument as it stands in the line: [TEXT], SOURCE, NAMES..."""
    shown = str(param.info.metavar or param.name).upper().strip("[].") + "..." * many(param)
    return shown if required(param) else f"[{shown}]"


def required(param: Parameter) -> bool:
    """Whether it must be given."""
    return param.info.default is ...


def names(param: Parameter) -> list[str]:
    """`-m`, `--model TEXT`: the value stands behind the last name."""
    given = [
        name for text in param.info.param_decls or () for name in text.split("/") if name.startswith("-")
    ]
    found = sorted(given or [f"--{param.name.replace('_', '-')}"], key=lambda name: name.startswith("--"))
    return found if param.kind is bool else [*found[:-1], f"{found[-1]} {value(param)}"]


def value(param: Parameter) -> str:
    """What stands for a value."""
    kind = bare(typing.get_args(param.kind)[0]) if many(param) else param.kind
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(map(str, typing.get_args(kind)))
    return str(param.info.metavar or VALUES.get(kind, "VALUE"))


def described(param: Parameter) -> str:
    """The help of an argument or option, with its default where a person would want to know it."""
    text, default = words(param.info.help or ""), param.info.default
    shown = isinstance(default, (str, int, float)) and not isinstance(default, bool) and default != ""
    if not shown or "default" in text.lower():
        return text + " Required." * (required(param) and isinstance(param.info, typer.models.OptionInfo))
    return f"{text.rstrip('.')} (default: {default})."


def words(text: str) -> str:
    """Help as Markdown: what looks like a tag is not one; paragraphs stay."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(one.split()).replace("<", "\\<") for one in paragraphs)


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    return words(text).partition("\n")[0].partition(". ")[0].rstrip(".") + "."
