"""Thoughts and what is said, told apart in whatever pieces they come."""

import random

import pytest

from rwkv_engine.text.thinking import Thinking


def split(prompt, pieces):
    thinking = Thinking(prompt)
    both = [thinking.push(piece) for piece in pieces] + [thinking.finish()]
    return "".join(thought for thought, _ in both), "".join(said for _, said in both), thinking.tagged


CASES = [
    ("Assistant:", " Hello, you.", "", "Hello, you.", False),
    ("Assistant:", " <think>\na b\n</think>\n\nc d\n\ne", "a b", "c d\n\ne", True),
    ("Assistant: <think", ">\na\n\nb</think>c", "a\n\nb", "c", True),
    ("Assistant: <think", ">a < b </thin </think> c </think>", "a < b </thin", "c </think>", True),
    ("Assistant: <think>\n</think", ">\nHi", "", "Hi", True),
    ("Assistant: <think>\n</think", " Hi > you", "", "Hi > you", True),
    ("Assistant: <think></think>", "> quoted", "", "> quoted", True),
    ("<think>\n", "a</think>b", "a", "b", True),
    ("Assistant: <think", ">never closed </th", "never closed </th", "", True),
    ("Assistant:", " <thin ice", "", "<thin ice", False),
    ("Assistant:", " <think", "", "<think", False),
    ("Assistant:", " a <think>b</think>", "", "a <think>b</think>", False),
    ("User: what is <think>?\n\nAssistant:", "x", "", "x", False),
]


@pytest.mark.parametrize(
    ("prompt", "text", "thought", "said", "tagged"), CASES, ids=[repr(case[:2]) for case in CASES]
)
def test_the_two_sides_do_not_depend_on_the_pieces(prompt, text, thought, said, tagged):
    rng = random.Random(1)
    assert split(prompt, list(text)) == split(prompt, [text]) == (thought, said, tagged)
    for _ in range(50):
        cuts = sorted(rng.sample(range(len(text) + 1), rng.randint(0, min(4, len(text)))))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert split(prompt, pieces) == (thought, said, tagged)


def test_nothing_of_a_tag_is_ever_shown():
    thinking = Thinking("Assistant: <think")
    shown = [thinking.push(c) for c in ">deep</think>yes"]
    assert "".join(thought for thought, _ in shown) == "deep"
    assert not any("<" in thought or ">" in said for thought, said in shown)
