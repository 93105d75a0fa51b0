"""Constraints that would cost the caller's program: each ends soon, as a constraint or in one sentence."""

import subprocess
import sys

import pytest

from rwkv_engine import Constraint, EngineError, OptionError
from rwkv_engine.text import Bytes
from rwkv_engine.text.stream import Stops
from rwkv_engine.writing import endings


def chain(count):
    parts = {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(count)}
    return {"$defs": parts | {f"d{count}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


HARMFUL = [
    {"type": "integer", "minimum": -1e308, "maximum": -1e308},
    {"type": "integer", "minimum": -(2**63), "maximum": 5 - 2**63},
    {"enum": [1, -(2**63)]},
    {"items": {"anyOf": [{"exclusiveMinimum": 10**400}]}},
    chain(2000),
    chain(10000),
    {"properties": {f"p{i}": {} for i in range(10000)}},
    '{"properties":{"a":' * 1000 + "{}" + "}}" * 1000,
    '{"items":' * 50000 + "{}" + "}" * 50000,
    '{"const": ' + "[" * 90000 + "]" * 90000 + "}",
    {"title": "x" * (1 << 21)},
    '{"minimum": NaN}',
]


def test_schemas_that_overflow_the_compilers_stack_are_refused_in_one_sentence():
    for schema in HARMFUL:
        with pytest.raises(OptionError, match="schema") as caught:
            Constraint.json_schema(schema)
        assert len(str(caught.value)) <= 500


def test_what_the_bounds_let_through_does_not_overflow_a_stack():
    script = """if True:
        from rwkv_engine import Constraint
        from rwkv_engine.text import Bytes
        def levels(count):
            inner = lambda i: {"anyOf": [{"type": "null"}, {"type": "array", "items": {"allOf": [{"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}}]}}]}
            return {"$defs": {f"d{i}": inner(i) for i in range(count)} | {f"d{count}": {"type": "integer"}}, "$ref": "#/$defs/d0"}
        for schema in (levels(100), {"type": "integer", "minimum": 1024 - 2**63, "maximum": 9000 - 2**63}, {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}):
            Constraint.json_schema(schema).begin(Bytes()).allowed(256)
        print("done")"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "done", done.stderr[-300:]


def test_a_schema_may_begin_with_a_byte_order_mark():
    assert Constraint.json_schema('\ufeff{"type": "integer"}') == Constraint.json_schema(
        '{"type": "integer"}'
    )


def test_lone_surrogates_are_refused_in_one_sentence():
    for make in (
        lambda: Constraint.choice(["a", "b\ud83d"]),
        lambda: Constraint.regex("\ud83d+"),
        lambda: Constraint.regex("a", after="\udc80"),
        lambda: Constraint.json_schema('{"const": "\ud83d"}'),
        lambda: Stops(["\udce9"]),
    ):
        with pytest.raises(EngineError, match="lone surrogate"):
            make()


@pytest.mark.parametrize("pattern", ["[0-9]*x", "(a|b)*c{3}", "[0-9]*[5-9]x", "[a-z]{20000}x"])
def test_the_search_for_an_ending_does_not_grow_with_the_budget(pattern, monkeypatch):
    asked = []
    monkeypatch.setattr(
        endings.Endings, "_allowed", lambda self, m, f=endings.Endings._allowed: asked.append(1) or f(self, m)
    )
    guide = Constraint.regex(pattern).begin(Bytes())
    token = int(guide.allowed(256).argmax())
    for left in range(30_000, 29_900, -1):
        token = guide.take(token, left)
        token = int(guide.allowed(256).argmax())
    assert len(asked) < 30_000


def test_a_long_text_without_a_choice_is_known_to_be_too_long():
    with pytest.raises(OptionError, match="30 is too few.*20000"):
        Constraint.regex("ab" * 10000).begin(Bytes()).take(ord("a"), 30)
