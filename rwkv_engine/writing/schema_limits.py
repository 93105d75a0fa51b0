"""Bounds for JSON schemas: llguidance goes down a schema by recursion in compiled code, and a stack that is
full ends the process.

Measured with llguidance 1.9 on a stack of 8 MB: it holds 1,800 levels, references included. A number of -2^63
or less makes it recurse for ever, and objects with thousands of properties keep it busy for minutes.
"""

from collections.abc import Iterator
from typing import Any

from rwkv_engine.errors import OptionError, brief

#: letters of a schema; levels of one part of it, and of all parts that are referred to, together; properties
#: of one object
LETTERS, DEPTH, LEVELS, PROPERTIES = 1 << 20, 100, 1000, 500
#: numbers that fit 64 bits, as floats too
LOWEST, HIGHEST = 1024 - (1 << 63), (1 << 64) - 1


def require_modest(text: str, schema: dict[str, Any]) -> None:
    """Raise OptionError for a schema, given as text and as what that text says, that is larger than
    llguidance bears.
    """
    if len(text) > LETTERS:
        raise OptionError(f"schema: it has {len(text)} letters, want at most {LETTERS}")
    depths: dict[int, int] = {}
    referred = set()
    for path, value in _parts(schema):
        depth = len(path)
        if depth > DEPTH:
            raise OptionError(f"schema: it is nested deeper than {DEPTH} levels")
        for place, parent in enumerate(path):
            depths[parent] = max(depths.get(parent, 0), depth - place)
        if isinstance(value, int | float) and not LOWEST <= value <= HIGHEST:
            raise OptionError(f"schema: it has the number {brief(value, 40)}, want one of at most 64 bits")
        if isinstance(value, dict):
            _check(value)
            if isinstance(value.get("$ref"), str):
                referred.add(value["$ref"])
    targets = [found for found in (_target(schema, name) for name in referred) if found is not None]
    levels = depths.get(id(schema), 0) + sum(1 + depths.get(id(target), 0) for target in targets)
    if levels > LEVELS:
        raise OptionError(
            f"schema: it and the {len(targets)} parts that it refers to have {levels} levels together, want at most {LEVELS}"
        )


def _parts(schema: dict[str, Any]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Every value in a schema, with the identities of the objects and lists around it."""
    stack: list[tuple[tuple[int, ...], Any]] = [((), schema)]
    while stack:
        path, value = stack.pop()
        yield path, value
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if len(path) <= DEPTH:
            stack += [((*path, id(value)), one) for one in inner]


def _check(part: dict[str, Any]) -> None:
    for name in ("properties", "patternProperties"):
        if isinstance(part.get(name), dict) and len(part[name]) > PROPERTIES:
            raise OptionError(f"schema: an object has {len(part[name])} {name}, want at most {PROPERTIES}")


def _target(schema: Any, name: str) -> Any:
    """What a reference within the schema points to, or None."""
    if not name.startswith("#"):
        return None
    for key in name[1:].strip("/").split("/"):
        key = key.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, dict) and key in schema:
            schema = schema[key]
        elif isinstance(schema, list) and key.isdecimal() and int(key) < len(schema):
            schema = schema[int(key)]
        elif key:
            return None
    return schema
