"""JSON from outside: what it may cost is bounded before it is parsed.

Its values take up to 44 times the text's own size: each `[]` makes a list of 88 bytes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: bytes that the values of one text may take, by an estimate that is seldom too low
MOST = 1 << 28
#: bytes for each such character, as measured with CPython 3.11
COSTS = {"[": 90, "{": 190, ",": 70, ":": 100}
#: bytes for each letter, in a text that has letters of four bytes
LETTER = 6


def require_modest(text: str | bytes) -> None:
    """Raise ValueError for a JSON text whose values would take over MOST bytes."""
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if LETTER * len(raw) + sum(cost * raw.count(sign.encode()) for sign, cost in COSTS.items()) > MOST:
        raise ValueError(f"its {len(raw)} bytes would take over {MOST >> 20} MB")


def parsed(text: str | bytes, pairs: Callable[[list[tuple[str, object]]], object] | None = None) -> Any:
    """What a JSON text says.

    pairs   makes the value of an object; None: a dict.
    Raises  ValueError for anything else, and for what is nested too deeply or not modest.
    """
    require_modest(text)
    try:
        raw = text if isinstance(text, str) else text.decode("utf-8-sig")
        return json.loads(raw, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parsed_file(path: Path) -> Any:
    """What a JSON file says. Raises OSError, and ValueError as `parsed`; a file of any size is read no
    further than it could be modest.
    """
    with path.open("rb") as file:
        return parsed(file.read(MOST // LETTER + 1))
