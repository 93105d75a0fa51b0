"""docs/api.md from the sources: every public name of `rwkv_engine`, its signature and what its docstring
promises.

Signatures are read from the source text and not from the running objects: how Python prints a type differs
between its versions.
"""

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import rwkv_engine

HEAD = """\
# The library: all public names

`import rwkv_engine` and use these. Everything else is internal and may change without notice.
For explanations with examples, see [the other pages](README.md).
This page is made from the docstrings by `python docs/make.py`; do not edit it.

`[V]`, `[T, V]` and the like are shapes: T tokens, V ids of the vocabulary, C numbers of the model's width, B sequences.
"""
#: a docstring's field: a name, two spaces or more, what it is
FIELD = re.compile(r"(?P<name>[A-Za-z_\"][\w\", ]*?)\s{2,}(?P<text>\S.*)")
#: characters that a line of a signature may have before it is broken up
WIDTH = 100
#: classes whose objects only the engine makes
MADE_BY = {
    "Model": "Made by `load`.",
    "State": "Made by `Model.new_state`, `Model.load_state`, `State.from_bytes`, `State.fork` and `blend`.",
}
#: methods that stand for an operator, as one writes them
OPERATORS = {
    "__getitem__": "{0}[{1}]",
    "__len__": "len({0})",
    "__eq__": "{0} == {1}",
    "__iter__": "iter({0})",
}

Definition = ast.ClassDef | ast.FunctionDef


def page() -> str:
    """The whole page: functions first, then classes, then errors."""
    found = {name: getattr(rwkv_engine, name) for name in rwkv_engine.__all__ if not name.startswith("__")}
    errors = {name: thing for name, thing in found.items() if is_error(thing)}
    classes = {name: thing for name, thing in found.items() if inspect.isclass(thing) and name not in errors}
    others = {name: thing for name, thing in found.items() if name not in errors and name not in classes}
    parts = [HEAD, "\n".join(index(group) for group in (others, classes, errors))]
    for title, group in (("Functions", others), ("Classes", classes), ("Errors", errors)):
        parts += [f"## {title}", *(section(name, group[name]) for name in sorted(group, key=str.lower))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def index(names: Iterable[str]) -> str:
    """One line of links."""
    return "* " + ", ".join(f"[{name}](#{name.lower()})" for name in sorted(names, key=str.lower))


def is_error(thing: Any) -> bool:
    """Whether it can be raised."""
    return inspect.isclass(thing) and issubclass(thing, BaseException)


def section(name: str, thing: Any) -> str:
    """One public name."""
    node = definition(thing)
    if node is None:
        return f"### {name}\n\n{code(f'{name} = {thing!r}')}"
    parts = [f"### {name}"]
    if is_error(thing):
        parts.append(
            "Raised as a kind of " + ", ".join(f"`{base.__name__}`" for base in thing.__bases__) + "."
        )
    elif isinstance(node, ast.FunctionDef):
        parts.append(code(signature(node, "")))
    elif name in MADE_BY:
        parts.append(MADE_BY[name])
    elif (made := constructor(node, thing)) is not None:
        parts.append(code(made))
    parts.append(prose(ast.get_docstring(node) or ""))
    if isinstance(node, ast.ClassDef):
        parts += [member(name, inner) for inner in members(node)]
    return "\n\n".join(part for part in parts if part)


def definition(thing: Any) -> Definition | None:
    """The class or function in its source file; None for a value."""
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return None
    path = importlib.import_module(thing.__module__).__file__ or ""
    body = ast.parse(Path(path).read_text("utf-8")).body
    return next(
        node
        for node in body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == thing.__name__
    )


def members(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Methods, properties and operators that have a docstring."""
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and ast.get_docstring(inner):
            if not inner.name.startswith("_") or inner.name in OPERATORS:
                yield inner


def member(owner: str, node: ast.FunctionDef) -> str:
    """One method or property of a class."""
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    holder = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", owner).lower()
    result = f" -> {written(node.returns)}" if node.returns else ""
    if node.name in OPERATORS:
        title = shown = OPERATORS[node.name].format(holder, *(one.arg for one in node.args.args[1:]))
        shown += result
    elif "property" in marks or any(mark.endswith("cached_property") for mark in marks):
        title, shown = f"{owner}.{node.name}", f"{holder}.{node.name}{result.replace(' ->', ':', 1)}"
    else:
        title, static = f"{owner}.{node.name}", "staticmethod" in marks
        before = owner if static or "classmethod" in marks else holder
        shown = signature(node, f"{before}.", skip=0 if static else 1)
    return f"#### {title}\n\n{code(shown)}\n\n{prose(ast.get_docstring(node) or '')}"


def constructor(node: ast.ClassDef, thing: type) -> str | None:
    """How an object is made: from `__init__`, or from a dataclass's fields; None where only the engine makes
    them.
    """
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return signature(inner, "", node.name, skip=1, returns=False)
    if not dataclasses.is_dataclass(thing):
        return None
    kinds = {
        ast.unparse(inner.target): written(inner.annotation)
        for inner in node.body
        if isinstance(inner, ast.AnnAssign)
    }
    texts = [
        f"{field.name}: {kinds[field.name]}{default(field)}"
        for field in dataclasses.fields(thing)
        if field.init
    ]
    return folded(node.name, texts, "")


def default(field: "dataclasses.Field[Any]") -> str:
    """A field's default value as it stands in a signature."""
    if field.default is not dataclasses.MISSING:
        return f" = {field.default!r}"
    return "" if field.default_factory is dataclasses.MISSING else f" = {field.default_factory.__name__}()"


def signature(
    node: ast.FunctionDef, prefix: str, name: str | None = None, skip: int = 0, returns: bool = True
) -> str:
    """A call as one would write it: prefix, name, arguments, result."""
    given = node.args
    places = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(places) - len(given.defaults)) + list(given.defaults)
    texts = [argument(one, value) for one, value in zip(places, defaults, strict=True)][skip:]
    if given.vararg or given.kwonlyargs:
        texts.append(f"*{argument(given.vararg, None) if given.vararg else ''}")
    texts += [argument(one, value) for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    result = f" -> {written(node.returns)}" if returns and node.returns else ""
    return folded(f"{prefix}{name or node.name}", texts, result)


def argument(node: ast.arg, value: ast.expr | None) -> str:
    """name: type = default."""
    kind = f": {written(node.annotation)}" if node.annotation else ""
    if value is None:
        return f"{node.arg}{kind}"
    return f"{node.arg}{kind}{' = ' if kind else '='}{ast.unparse(value)}"


def folded(name: str, arguments: list[str], result: str) -> str:
    """On one line where that is short enough, else one argument to a line."""
    short = f"{name}({', '.join(arguments)}){result}"
    if len(short) <= WIDTH or not arguments:
        return short
    return "\n".join([f"{name}(", *(f"    {one}," for one in arguments), f"){result}"])


def code(text: str) -> str:
    """A block that the tests do not run."""
    return f"```text\n{text}\n```"


def written(annotation: ast.expr) -> str:
    """A type as text; one that is quoted because it comes later in its file stands without quotation marks."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return ast.unparse(annotation)


def prose(doc: str) -> str:
    """A docstring as Markdown: its fields become a list, what is indented without a field stays as it is."""
    lines: list[str] = []
    for line in doc.splitlines():
        fields, in_list = list(split_fields(line)), bool(lines) and lines[-1].startswith("* ")
        if fields:
            lines += [""] * (bool(lines) and not in_list and bool(lines[-1]))
            lines += [f"* {entry(name)}: {escaped(text)}" for name, text in fields]
        elif line.startswith(" ") and in_list:
            lines[-1] += " " + escaped(line.strip())
        elif line.startswith(" "):
            lines.append("    " + line.strip())
        else:
            lines += [""] * (in_list and bool(line)) + [escaped(line)]
    return "\n".join(lines).strip()


def entry(name: str) -> str:
    """How a field's name is set: arguments as code, Returns and Raises as words."""
    return name if name in ("Returns", "Raises") else f"`{name}`"


def split_fields(line: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each field that a line of a docstring begins; two may stand side by side."""
    if line.startswith(" ") or not FIELD.fullmatch(line):
        return
    parts = re.split(r"\s{2,}", line.strip())
    if len(parts) % 2:
        parts = [parts[0], "  ".join(parts[1:])]
    yield from zip(parts[::2], parts[1::2], strict=True)


def escaped(text: str) -> str:
    """Characters that Markdown would take for its own, outside of backticks."""
    pieces = text.split("`")
    pieces[::2] = [piece.replace("<", "\\<").replace("*", "\\*") for piece in pieces[::2]]
    return "`".join(pieces)
