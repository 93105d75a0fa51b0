"""Random changes of bytes and of JSON."""

import json

NUMBERS = (0, 1, -1, 2, 7, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40, (1 << 62), (1 << 63) - 1, 1 << 64, 10**400, 0.5,
           -0.0, 1e308, -1e308, float("nan"), float("inf"))  # fmt: skip
TEXTS = ("", "a", "²", "\ud800", "\0", "\n", "../x", "/", ".", "..", "x" * 300, "é" * 5000, "9" * 5000, "{{ 1 }}", "F64", "BF16", "INT8",
         "blocks.0.att.w1", "emb.weight", "[", "(a+)+$", "\u202e", "data", "true", "$ref", "#")  # fmt: skip


def other_bytes(rng, content, pieces=(), most=4):
    """The bytes after one to `most` changes: bytes, pieces, deletions, copies, truncation."""
    raw = bytearray(content)
    for _ in range(rng.randint(1, most)):
        place = rng.randrange(len(raw) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            raw[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1 and pieces:
            raw[place:place] = rng.choice(pieces)
        elif kind == 2 and pieces:
            piece = rng.choice(pieces)
            raw[place : place + len(piece)] = piece
        elif kind == 3:
            del raw[place : place + rng.choice((1, 2, 8, 200))]
        elif kind == 4:
            start = rng.randrange(len(raw) + 1)
            raw[place:place] = raw[start : start + rng.randrange(60)]
        elif rng.randrange(4) == 0:
            del raw[place:]
        else:
            raw[place : place + 1] = bytes([(raw[place] if place < len(raw) else 0) ^ 1 << rng.randrange(8)])
    return bytes(raw) or b"\0"


def other_text(rng, text, pieces=()):
    """`other_bytes` of a text, which stays text: what is no UTF-8 becomes lone surrogates."""
    pieces = tuple(piece.encode("utf-8", "surrogatepass") for piece in (*pieces, *TEXTS))
    return other_bytes(rng, text.encode("utf-8", "surrogatepass"), pieces).decode("utf-8", "surrogateescape")


def other_json(rng, value, most=3):
    """A JSON value with one to `most` of its parts changed: put away, moved, doubled, replaced, nested, or of
    another type.
    """
    for _ in range(rng.randint(1, most)):
        value = _changed(rng, value)
    return value


def text_of(value):
    """JSON as Python writes it, with NaN and lone surrogates."""
    try:
        return json.dumps(value)
    except RecursionError:  # Python writes nothing that is nested so deeply, others do
        return "[" * 3000 + "]" * 3000


def _changed(rng, value):
    if isinstance(value, dict) and value and rng.randrange(8):
        value = dict(value)
        key = rng.choice(list(value))
        kind = rng.randrange(10)
        if kind == 0:
            del value[key]
        elif kind == 1:
            value[rng.choice(TEXTS)] = value.pop(key)
        elif kind == 2:
            value[rng.choice(TEXTS)] = value[key]
        elif kind == 3:
            value[key] = value[rng.choice(list(value))]
        else:
            value[key] = _changed(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.randrange(8):
        value, place, kind = list(value), rng.randrange(len(value)), rng.randrange(8)
        if kind == 0:
            del value[place]
        elif kind == 1:
            value.insert(place, value[rng.randrange(len(value))])
        elif kind == 2:
            value *= rng.choice((2, 3, 50))
        else:
            value[place] = _changed(rng, value[place])
        return value
    return _leaf(rng, value)


def _leaf(rng, value):
    kind = rng.randrange(9)
    if kind == 0:
        return rng.choice((None, True, False, {}, [], [[]], {"": {}}))
    if kind == 1:
        for _ in range(rng.choice((1, 5, 60, 900))):
            value = rng.choice(([value], {"a": value})) if rng.randrange(2) else [value]
        return value
    if isinstance(value, int | float) and kind < 7:
        return rng.choice((value + rng.choice((-1, 1, 8, 64)), *NUMBERS))
    if isinstance(value, str) and kind < 7:
        return other_text(rng, value) if rng.randrange(2) else rng.choice(TEXTS)
    return rng.choice((*NUMBERS, *TEXTS))
