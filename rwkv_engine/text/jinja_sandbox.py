"""The sandbox for Jinja templates: no access to the outside, and limits of time and memory.

jinja2's own sandbox blocks access to Python's internals. Here loops, calls, filters and operators also pay
from one budget, so that a short template cannot run for hours or fill the memory.
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

#: the budget: loop iterations, calls, and the characters or items that they handle
WORK, LETTERS_A_UNIT = 300_000, 100
#: the longest string or list, and the largest number, that an operation may take
LONGEST, LARGEST = 1 << 22, 1 << 20
#: a width in a format string that is larger than that
_WIDE = re.compile(r"\d{6}")

_left: ContextVar[list[int]] = ContextVar("left")


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment whose templates are rendered with `rendered`.

    Raises OverflowError if a template exceeds its budget.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        self.globals.pop("lipsum", None)
        self.globals.update(raise_exception=_raise, strftime_now=_now)
        self.filters = {name: _paid(used) for name, used in self.filters.items()}
        self.filters |= {"tojson": _to_json, "_counted": _counted, "_joined": _joined}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator, if its result is bounded."""
        sizes = [_size(value) for value in (left, right)]
        if operator == "**" or (operator == "*" and max(sizes)):
            _pay(left, right)
        if operator == "*" and max(sizes) and max(sizes) * max(_number(left), _number(right)) > LONGEST:
            raise OverflowError("it multiplies a text or list to more than fits")
        if operator == "**" and max(_number(left), _number(right)) > 1000:
            raise OverflowError("it raises to a power that is too high")
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise OverflowError("a format in it is too wide")
        return _short(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call, if its arguments are bounded."""
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        _pay(owner, *args, *kwargs.values())
        if getattr(__obj, "__name__", "") in ("replace", "join") and isinstance(owner, str):
            _fits_product(owner, args)
        if isinstance(owner, str) and "format" in getattr(__obj, "__name__", "") and _WIDE.search(owner):
            raise OverflowError("a format in it is too wide")
        if isinstance(__obj, LoopContext) and args:
            args = (_counted(args[0]), *args[1:])
        return _short(super().call(__context, __obj, *args, **kwargs))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Counting().visit(source), *args, **kwargs)


def rendered(template: Any, **values: Any) -> str:
    """The output of a template of a `Sandbox` for these values."""
    token = _left.set([WORK])
    try:
        parts: list[str] = []
        length = 0
        for part in template.generate(**values):
            length += len(part)
            if length > LONGEST:
                raise OverflowError("what it writes is too long")
            parts.append(part)
        return "".join(parts)
    finally:
        _left.reset(token)


class _Generation(Extension):
    """`{% generation %}`, which marks the assistant's text for training; its content is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Counting(NodeTransformer):
    """Adds a counter to every loop, and a check to every joining of strings."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._filtered(node.iter, "_counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined")

    def _filtered(self, node: nodes.Node, name: str) -> Any:
        made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
        return made.set_environment(node.environment) if node.environment else made


def _paid(used: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays for its input."""

    @functools.wraps(used)
    def pays(*args: Any, **kwargs: Any) -> Any:
        _pay(*args, *kwargs.values())
        texts = [arg for arg in args if isinstance(arg, str)]
        if used.__name__ in ("do_replace", "sync_do_join", "do_join", "do_indent") and texts:
            _fits_product(texts[0], args)
        return _short(used(*args, **kwargs))

    return pays


def _pay(*values: Any) -> None:
    """Take a cost from the budget; refuse numbers that are too large."""
    left = _left.get(None)
    if any(_number(value) > LARGEST for value in values):
        raise OverflowError("it asks for a number that is too large")
    if left is not None:  # else a constant is worked out while the template is compiled
        left[0] -= 1 + sum(map(_size, values)) // LETTERS_A_UNIT
        if left[0] < 0:
            raise OverflowError("it takes too many steps")


def _fits_product(text: str, args: Iterable[Any]) -> None:
    """Refuse to put a long string between the characters of another."""
    for arg in args:
        items = arg if isinstance(arg, list | tuple) else [arg]
        if max(map(_size, items), default=0) * max(len(text), 1) > 64 * LONGEST:
            raise OverflowError("it puts texts together to more than fits")


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _pay()
        yield item


def _joined(parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    _pay(*texts)
    return str(_short("".join(texts)))


def _short(value: Any) -> Any:
    if _size(value) > LONGEST:
        raise OverflowError("it makes a text or list that is too long")
    return value


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Sized) and isinstance(value, str | list | tuple | dict) else 0


def _number(value: Any) -> float:
    return abs(value) if isinstance(value, int | float) else 0


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """JSON as Hugging Face's templates want it: non-ASCII characters stay as they are."""
    _pay(indent)
    known = {key: options[key] for key in ("separators", "sort_keys") if key in options}
    return str(_short(json.dumps(value, ensure_ascii=False, indent=indent, **known)))


def _raise(message: object) -> None:
    raise ValueError(str(message))


def _now(form: str) -> str:
    import datetime

    return datetime.datetime.now().strftime(str(form))
