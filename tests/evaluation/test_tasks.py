"""Tasks: each kind against what feeding the model by hand gives, and lines that are refused."""

import json
import math

import numpy as np
import pytest

import rwkv_engine
from rwkv_engine.evaluation import asking
from rwkv_engine.evaluation.keeping import Keeper
from rwkv_engine.evaluation.likelihood import likelihoods, pair
from rwkv_engine.evaluation.tasks import task_of

STORIES = [
    "Once upon a time there was a kind girl named Mia. She had a red ball. One day Mia went to the park with the red ball.",
    "Once upon a time there was a kind boy named Tom. He had a blue kite. Tom lost the blue kite.",
    "User: Anna has a cat.\n\nAssistant: Anna has a cat.",
    "Once upon a time there was a zebra",
    "Once upon a time there was a kind girl",
]


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_hand(model, context, continuation):
    """(nats, whether each token was the likeliest) of a continuation, token by token in float64."""
    before, after = pair(model, context, continuation)
    state, nats, greedy = model.new_state(), 0.0, True
    logits = model.feed(before, state).astype(np.float64)
    for token in after:
        nats += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[token]
        greedy &= bool(logits.argmax() == token)
        logits = model.feed([token], state).astype(np.float64)
    return nats, greedy


def test_a_pair_is_the_text_of_both_cut_at_the_contexts_tokens(embedded):
    context, continuation = pair(embedded, "Once upon a ", "time")
    assert context[0] == embedded.tokenizer.end
    assert embedded.tokenizer.decode(context[1:]) == "Once upon a"
    assert embedded.tokenizer.decode(continuation) == " time"


def test_likelihoods_of_many_are_those_of_each_alone_and_contexts_are_read_once(embedded, monkeypatch):
    asked = [
        (text, more)
        for text in ("Mia has a red", "Tom went to")
        for more in (" ball.", " the park.", "", " x")
    ]
    read = []
    feed_batch = type(embedded).feed_batch
    monkeypatch.setattr(
        type(embedded),
        "feed_batch",
        lambda self, batch, wanted=None: read.append(len(batch)) or feed_batch(self, batch, wanted),
    )
    found = likelihoods(embedded, [pair(embedded, *one) for one in asked])
    assert read[0] == 2
    for one, (context, continuation) in zip(found, asked, strict=True):
        nats, greedy = by_hand(embedded, context, continuation)
        assert one.nats == pytest.approx(nats, rel=1e-4, abs=1e-5) and one.greedy == greedy


def test_last_words_are_right_where_the_model_would_write_them(tmp_path, embedded):
    task = task_of(lines(tmp_path / "words.jsonl", *({"text": text} for text in STORIES)))
    score = asking.ask(embedded, task, Keeper(None), print)
    hand = [by_hand(embedded, *(lambda a, b, c: (a, b + c))(*text.rpartition(" "))) for text in STORIES]
    assert (
        score.kind == "last word" and score.right == sum(greedy for _, greedy in hand) and 0 < score.right < 5
    )
    assert score.perplexity == pytest.approx(math.exp(sum(nats for nats, _ in hand) / 5), rel=1e-4)


def test_the_likeliest_choice_is_taken_and_counted_by_group(tmp_path, embedded):
    prompt = "User: Mia has a red ball. What colour is the ball?\n\nAssistant: The ball is"
    rows = [
        {"prompt": prompt, "choices": ["blue.", "red.", "green."], "answer": 1, "task": "a"},
        {"prompt": prompt, "choices": ["blue.", "red."], "answer": "blue.", "task": "b"},
    ]
    score = asking.ask(embedded, task_of(lines(tmp_path / "c.jsonl", *rows)), Keeper(None), print)
    assert (score.right, score.asked, score.groups) == (1, 2, {"a": [1, 1], "b": [0, 1]})
    assert score.by_length == 0.5 and score.accuracy_error == 0.5


def test_written_answers_are_compared_exactly_or_by_a_regular_expression(tmp_path, embedded):
    prompt = "User: Mia went to the park. Where is Mia?\n\nAssistant:"
    rows = [
        {"prompt": prompt, "answer": "Mia is in the park."},
        {"prompt": prompt, "answer": "Mia is in the"},
        {"prompt": prompt, "regex": r"Mia .*park\."},
        {"prompt": prompt, "regex": r"Mia"},
        {"prompt": prompt, "answer": "Mia is", "stop": [" in"]},
    ]
    score = asking.ask(embedded, task_of(lines(tmp_path / "a.jsonl", *rows)), Keeper(None), print)
    assert score.right == 3


def test_questions_that_were_asked_are_not_asked_again(tmp_path, embedded, monkeypatch):
    task = task_of(lines(tmp_path / "words.jsonl", *({"text": text} for text in STORIES)))
    keeper = Keeper(tmp_path / "kept")
    first = asking.ask(embedded, task, keeper, print)
    monkeypatch.setattr(asking, "_ASK", {})
    assert asking.ask(embedded, task, keeper, print) == first


def test_the_embedded_model_knows_the_answers_of_its_own_task():
    (row,) = rwkv_engine.evaluate(tasks=["embedded"], items=20, memory=False)
    assert row.tasks[0].right >= 18 and row.bits_per_byte is None and row.tokens == 0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "no question"),
        ("{", "line 1 is no JSON"),
        ("[1]", 'want {"text"'),
        ('{"text": "word"}', "several words"),
        ('{"prompt": "a"}', 'want {"text"'),
        ('{"prompt": "a", "choices": ["b"], "answer": 0}', "two texts or more"),
        ('{"prompt": "a", "choices": ["b", "c"], "answer": 2}', "counted from 0"),
        ('{"prompt": "a", "regex": "("}', "no regular expression"),
        ('{"prompt": "a", "answer": "b", "max_tokens": 0}', "1 or more"),
        ('{"prompt": "a", "answer": "b"}\n{"text": "a b"}', "several kinds"),
    ],
)
def test_a_bad_line_is_refused_in_one_sentence(tmp_path, rwkv, line, why):
    (tmp_path / "t.jsonl").write_text(line)
    assert why in rwkv("eval", "--tasks", tmp_path / "t.jsonl", status=2)


def test_a_model_of_ones_own_needs_a_text_or_a_task(rwkv, tmp_path):
    assert "--text FILE" in rwkv("eval", tmp_path, status=2)
    assert "tokens: got 0" in rwkv("eval", "--tokens", "0", status=2)
