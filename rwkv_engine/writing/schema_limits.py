"""Bounds for JSON schemas: llguidance goes down a schema by recursion in compiled code, and a stack that is
full ends the process.

Measured with llguidance 1.9 on a stack of 8 MB: it holds 1,800 levels, references included. A number of -2^63
or less makes it recurse for ever, and objects with thousands of properties keep it busy for minutes. A
`multipleOf` takes 8 us and 500 bytes for each whole number up to it, and several together as many as their
least common multiple.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from rwkv_engine.errors import OptionError, brief
from rwkv_engine.system.json_text import parsed

#: letters of a schema; levels of one part of it, and of all parts that are referred to, together; properties
#: of one object
LETTERS, DEPTH, LEVELS, PROPERTIES = 1 << 20, 100, 1000, 500
#: the digits of the least common multiple of all `multipleOf`, as a whole number without zeros at its end
MULTIPLE = 100_000
#: numbers that fit 64 bits, as floats too
LOWEST, HIGHEST = 1024 - (1 << 63), (1 << 64) - 1


def require_modest(text: str) -> None:
    """Raise OptionError for a schema that is larger than llguidance bears, ValueError for what is no JSON."""
    if len(text) > LETTERS:  # before it is parsed, which can take 44 times as much
        raise OptionError(f"schema: it has {len(text)} letters, want at most {LETTERS}")
    schema = parsed(text)
    if not isinstance(schema, dict):
        raise OptionError(f"schema: got {text[:60]!r}, want a JSON object")
    depths: dict[int, int] = {}
    referred, common = set(), Fraction(0)
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
            common = _common(common, value.get("multipleOf"))
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


def _common(before: Fraction, number: object) -> Fraction:
    """The least common multiple of two positive numbers, of which the first may be 0: none yet."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < HIGHEST:
        return before
    new = Fraction(str(number))
    if before:
        low = math.gcd(before.denominator, new.denominator)
        new = Fraction(math.lcm(before.numerator, new.numerator), low)
    digits = new
    while digits.denominator > 1:
        digits *= 10
    while digits.numerator % 10 == 0:
        digits /= 10
    if digits > MULTIPLE:
        raise OptionError(
            f"schema: its multipleOf have the least common multiple {brief(float(new), 30)}, whose digits are over {MULTIPLE}"
        )
    return new


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
