"""JSON from outside costs no more than is allowed, whichever reader meets it."""

import json
import tracemalloc
from pathlib import Path

import pytest

from rwkv_engine import Constraint, EngineError
from rwkv_engine.bench.report import Report
from rwkv_engine.checkpoints.layout_huggingface import _config
from rwkv_engine.evaluation.tasks import task_of
from rwkv_engine.system.json_text import COSTS, LETTER, MOST, parsed, parsed_file
from rwkv_engine.text.companions import template_beside

MANY = "[" + ",".join(["[" * 50 + "]" * 50] * 70_000) + "]"
READERS = {
    "model's config": ("config.json", lambda path: _config(path.parent)),
    "tokenizer's config": ("tokenizer_config.json", lambda path: template_beside(path.parent)),
    "report": ("report.json", Report.of_file),
    "task": ("task.jsonl", task_of),
    "schema": ("schema.json", lambda path: Constraint.json_schema(path.read_text())),
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([[[]]] * 30_000),
        json.dumps([{"a": "b"}] * 30_000),
        json.dumps({f"{n:05d}": f"{n:05d}" for n in range(30_000)}),
        json.dumps([0.5] * 30_000),
        json.dumps("a" * 300_000 + "\U0001f600"),
    ],
    ids=("lists", "objects", "pairs", "numbers", "letters of four bytes"),
)
def test_the_estimate_is_at_least_what_the_values_take(text):
    tracemalloc.start()
    try:
        parsed(text)
        taken = tracemalloc.get_traced_memory()[1] - len(text)
    finally:
        tracemalloc.stop()
    assert taken <= LETTER * len(text) + sum(cost * text.count(sign) for sign, cost in COSTS.items())


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "text", [MANY, "[" * 100_000 + "]" * 100_000], ids=("too many values", "nested too deeply")
)
def test_json_that_would_cost_too_much_is_refused_before_it_does(name, text, tmp_path):
    file, read = READERS[name]
    (tmp_path / file).write_text(text)
    tracemalloc.start()
    try:
        with pytest.raises(EngineError) as told:
            read(tmp_path / file)
        assert tracemalloc.get_traced_memory()[1] < 60 << 20  # parsed, it takes 300 MB
    finally:
        tracemalloc.stop()
    assert len(str(told.value)) < 500 and "\n" not in str(told.value)


def test_a_file_of_any_size_is_read_no_further_than_it_could_be_parsed(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            parsed_file(Path(tmp_path / "a"))
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
