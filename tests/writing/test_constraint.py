"""Constrained text: it fits, whatever the model would rather say, and nobody can take a cut one for a whole
one.
"""

import gc
import json
import os
import re
import weakref

import jsonschema
import numpy as np
import pytest
from test_generate import Says, generate

import rwkv_engine
from rwkv_engine import Constraint, OptionError, Sampling
from rwkv_engine.text import Bytes, World
from rwkv_engine.writing import guidance

#: texts that are generated from schemas; RWKV_ENGINE_SCHEMAS=200 makes more of them
COUNT = int(os.environ.get("RWKV_ENGINE_SCHEMAS", "16"))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["big", "red", "new"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": ["number", "null"]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS = [
    PERSON,
    TREE,
    {"type": "object"},
    {"type": "array", "items": {"type": "string", "minLength": 5}, "minItems": 2},
]


def written(steps):
    steps = list(steps)
    return "".join(step.text for step in steps), steps[-1].stop


def test_every_text_fits_its_schema_however_few_tokens_there_are(embedded):
    for seed in range(COUNT):
        schema, most = SCHEMAS[seed % len(SCHEMAS)], (30, 45, 80, 150)[seed // 4 % 4]
        sampling = Sampling(temperature=1.5, top_p=1.0, seed=seed)
        steps = embedded.generate(
            "Tom has a red ball. ",
            max_tokens=most,
            sampling=sampling,
            constraint=Constraint.json_schema(schema),
        )
        text, stop = written(steps)
        assert stop in ("end", "complete"), text
        jsonschema.validate(json.loads(text), schema)


def test_likeliest_tokens_fit_too_and_the_same_seed_gives_the_same_text(embedded):
    constraint = Constraint.json_schema(PERSON)
    runs = [
        written(
            embedded.generate("Tom", constraint=constraint, max_tokens=60, sampling=Sampling(temperature=0))
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    jsonschema.validate(json.loads(runs[0][0]), PERSON)


@pytest.mark.parametrize("pattern", [r"\d{4}-\d{2}-\d{2}", r"[a-z]*b[0-9]{3}", r"[^x]*x", r"(ab|cd)+é?"])
def test_a_regular_expression_matches_from_end_to_end(embedded, pattern):
    for seed in range(3):
        text, stop = written(
            embedded.generate(
                "Once", constraint=Constraint.regex(pattern), max_tokens=25, sampling=Sampling(seed=seed)
            )
        )
        assert stop in ("end", "complete")
        assert re.fullmatch(pattern, text), text


def test_a_choice_is_one_of_its_texts_and_the_state_holds_it(embedded):
    choices = ["yes", "no", "I (do not) know. *really*", "über"]
    seen = set()
    for seed in range(8):
        state = embedded.new_state()
        sampling = Sampling(temperature=5.0, top_p=1.0, seed=seed)
        steps = list(
            embedded.generate("Is it?", constraint=Constraint.choice(choices), state=state, sampling=sampling)
        )
        text = "".join(step.text for step in steps)
        assert text in choices
        fed = [step.token for step in steps if step.stop != "end"]
        other = embedded.new_state()
        embedded.feed(embedded.tokenizer.encode("Is it?"), other)
        for token in fed:
            embedded.feed([token], other)
        assert other == state
        seen.add(text)
    assert len(seen) > 1


def test_what_comes_up_to_the_delimiter_is_free_and_what_follows_fits(embedded):
    constraint = Constraint.json_schema(PERSON, after="</think>")
    text, stop = written(
        embedded.generate(
            "Tom has a ball. <think>", constraint=constraint, max_tokens=70, sampling=Sampling(seed=3)
        )
    )
    thought, _, answer = text.partition("</think>")
    assert stop in ("end", "complete")
    assert len(thought) > 20
    jsonschema.validate(json.loads(answer), PERSON)
    assert constraint.answer(text) == answer.strip()


def test_a_thought_is_ended_in_time_for_an_answer(embedded):
    constraint = Constraint.choice(["yes", "no"], after="</think>")
    for seed in range(40):
        sampling = Sampling(temperature=3.0, top_p=1.0, seed=seed)
        text, stop = written(
            embedded.generate("Is it?", constraint=constraint, max_tokens=12 + seed % 5, sampling=sampling)
        )
        assert stop in ("end", "complete"), text
        assert constraint.answer(text) in ("yes", "no"), text


@pytest.mark.parametrize(
    ("prompt", "first"),
    [("Q: <think></think", ">"), ("Q: <think></think>", ""), ("Q: <think></think>\n", "")],
)
def test_the_delimiter_may_begin_or_stand_in_the_prompt(embedded, prompt, first):
    guide = Constraint.choice(["yes"], after="</think>").begin(embedded.tokenizer, prompt.encode())
    for token in embedded.tokenizer.encode(first):
        assert guide.take(token, None) == token
    allowed = np.flatnonzero(guide.allowed(embedded.config.vocab))
    assert all(b"yes".startswith(embedded.tokenizer.token_bytes(token)) for token in allowed) and len(allowed)


def test_a_token_that_ends_the_delimiter_and_carries_on_is_not_allowed():
    tokenizer = World()
    guide = Constraint.choice(["yes"], after="x>").begin(tokenizer, b"a x")
    mask = guide.allowed(tokenizer.size)
    carrying = [i for i in range(tokenizer.size) if re.match(rb">\s*\S", tokenizer.token_bytes(i))]
    assert carrying and not mask[carrying].any()
    assert mask[tokenizer.encode(">")].all() and mask[tokenizer.encode("b")].all() and not mask[tokenizer.end]


@pytest.mark.parametrize("tokenizer", [World(), Bytes()], ids=["world", "bytes"])
def test_the_end_token_is_allowed_where_the_text_is_whole_and_nowhere_else(tokenizer):
    guide = Constraint.regex("ab*").begin(tokenizer)
    seen = []
    for token in tokenizer.encode("a") + tokenizer.encode("b"):
        mask = guide.allowed(tokenizer.size + 7)
        seen.append((bool(mask[tokenizer.end]), guide.whole))
        assert mask[token] and not mask[tokenizer.size :].any()
        guide.take(token, None)
    assert seen == [(False, False), (True, True)]
    assert not guide.over


def test_a_cut_text_says_so_where_no_ending_was_found(embedded, monkeypatch):
    monkeypatch.setattr("rwkv_engine.writing.endings.Endings._search", lambda self, matcher, most: None)
    text, stop = written(
        embedded.generate(
            "Tom", constraint=Constraint.regex("[a-z ]{500}"), max_tokens=5, sampling=Sampling(seed=1)
        )
    )
    assert stop == "cut" and len(text) < 500


def test_a_budget_that_cannot_do_is_refused(embedded):
    with pytest.raises(OptionError, match="too few"):
        list(embedded.generate("Tom", constraint=Constraint.regex("[0-9]{40}"), max_tokens=3))


@pytest.mark.parametrize(
    "schema",
    [
        '{"type":',
        "[1]",
        "3",
        {"type": "objec"},
        {"not": {}},
        {"type": "string", "pattern": "("},
        {"enum": []},
        {"a": Ellipsis},
        {1, 2},
    ],
    ids=str,
)
def test_a_schema_that_cannot_be_kept_is_one_sentence(schema):
    with pytest.raises(OptionError, match="^schema") as caught:
        Constraint.json_schema(schema)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_other_constraints_that_cannot_be_meant_are_refused(embedded):
    for wrong in ("(", "", r"(?=a)b", r"(a)\1"):
        with pytest.raises(OptionError, match="^regex"):
            Constraint.regex(wrong)
    for wrong in ([], [""], "yes", [1]):
        with pytest.raises(OptionError, match="^choice"):
            Constraint.choice(wrong)
    with pytest.raises(OptionError, match="^after"):
        Constraint.regex("a", after="")


def test_a_stop_string_ends_a_constrained_text_too(embedded):
    state = embedded.new_state()
    options = {"constraint": Constraint.choice(["one, two, three"]), "sampling": Sampling(temperature=0)}
    text, stop = written(embedded.generate("Count: ", stop=[", th"], state=state, **options))
    assert (text, stop) == ("one, two", "stop")
    other = embedded.new_state()
    ids = embedded.tokenizer.encode("Count: ")
    whole = [step.token for step in embedded.generate("Count: ", **options) if step.stop != "end"]
    length = state.position - len(ids)
    assert b"".join(map(embedded.tokenizer.token_bytes, whole[:length])) in b"one, two"
    embedded.feed(ids + whole[:length], other)
    assert np.allclose(state.block, other.block, atol=1e-5) and state.position == other.position


def test_a_tokenizer_that_cannot_write_the_text_is_told_of():
    model = Says([b"a", b"b"])
    with pytest.raises(OptionError, match="no token|regex"):
        list(generate(model, [1], constraint=Constraint.regex("xyz")))


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(rwkv_engine.MissingExtra, match="install .*llguidance"):
        Constraint.regex("a")


def test_a_tokenizer_is_let_go_when_enough_others_came_after_it():
    first = Bytes()
    gone = weakref.ref(first)
    guidance.vocabulary_of(first)
    del first
    for number in range(guidance.PREPARED):
        gc.collect()
        assert gone() is not None, number
        guidance.vocabulary_of(Bytes())
    gc.collect()
    assert gone() is None
