"""Generation, with a model that says a fixed text: which steps come, and what the state holds afterwards."""

import random
import threading

import numpy as np
import pytest

from rwkv_engine import OptionError, Sampling
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.state import Plane, State, StateLayout
from rwkv_engine.text.tokenizer import Bytewise
from rwkv_engine.writing import generate as writing
from rwkv_engine.writing.wishes import Wishes

GREEDY = Sampling(temperature=0)


def generate(model, prompt, *, state=None, cancel=None, sampling=None, **wishes):
    return writing.generate(model, prompt, Wishes(sampling=sampling or Sampling(), **wishes), state, cancel)


class Pieces:
    """A tokenizer whose tokens are given pieces of bytes; 0 ends a document."""

    name, end, ends, markers, additive = "pieces", 0, frozenset({0}), {}, True

    def __init__(self, pieces):
        self.pieces = [b"", *pieces]
        self.size = len(self.pieces)

    def encode(self, text):
        return [self.pieces.index(text.encode())] if text else []

    def decode(self, ids):
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def token_bytes(self, token):
        return self.pieces[token]

    def decoder(self, before=(), begun=False):
        return Bytewise(self)


class Says:
    """A model that continues with tokens 1, 2, 3 ... whatever it is fed, then ends; its state remembers what
    it was fed.
    """

    def __init__(self, pieces):
        self.tokenizer, self.format = Pieces(pieces), "none"
        self.vocab = self.tokenizer.size
        self._layout = StateLayout((Plane("fed", (400,)),), "says")

    def new_state(self):
        return State.fresh(self._layout)

    def skim(self, tokens, state):
        self.feed(tokens, state)

    def feed(self, tokens, state):
        for token in tokens:
            state["fed"][state.position] = token
            state.position += 1
        logits = np.zeros(self.tokenizer.size, np.float32)
        last = int(state["fed"][state.position - 1])
        logits[(last + 1) % self.tokenizer.size] = 9
        return logits


def fed(state):
    return state["fed"][: state.position].astype(int).tolist()


def run(pieces, **options):
    model = Says(pieces)
    state = model.new_state()
    steps = list(generate(model, [0], sampling=GREEDY, state=state, **options))
    return steps, "".join(step.text for step in steps), fed(state)


def test_the_end_token_ends_and_is_not_fed():
    steps, text, seen = run([b"a", b"b"])
    assert text == "ab"
    assert [step.token for step in steps] == [1, 2, 0]
    assert [step.stop for step in steps] == [None, None, "end"]
    assert seen == [0, 1, 2]


def test_max_tokens_ends_with_all_of_them_fed():
    steps, text, seen = run([b"a", b"b", b"c"], max_tokens=2)
    assert (text, steps[-1].stop, seen) == ("ab", "length", [0, 1, 2])


def test_a_character_is_shown_when_it_is_whole():
    steps, text, _ = run(["é".encode()[:1], "é".encode()[1:], b"x"])
    assert [step.text for step in steps] == ["", "é", "x", ""]
    steps, text, _ = run(["é".encode()[:1]], max_tokens=1)
    assert text == "\ufffd"


@pytest.mark.parametrize(
    ("pieces", "stop", "text", "kept"),
    [
        ([b"one", b" two", b" three"], [" three"], "one two", [0, 1, 2]),
        ([b"one", b"\n", b"\n", b"User", b":", b"x"], ["\n\nUser:"], "one", [0, 1]),
        ([b"one", b" t", b"wo th", b"ree", b"x"], ["two three"], "one ", [0, 1]),
        ([b"aXb"], ["X"], "a", [0]),
        ([b"a", b"\n", b"b", b"\n", b"\n", b"c"], ["\n\n"], "a\nb", [0, 1, 2, 3]),
        ([b"aab", b"aabaac", b"z"], ["aabaac"], "aab", [0, 1]),
        ([b"a", "é".encode()[:1], "é".encode()[1:], b"b"], ["é"], "a", [0, 1]),
    ],
)
def test_a_stop_string_is_not_shown_and_the_state_is_before_it(pieces, stop, text, kept):
    steps, got, seen = run(pieces, stop=stop)
    assert (got, steps[-1].stop, seen) == (text, "stop", kept)


def test_random_pieces_and_stops_leave_the_state_behind_the_last_whole_token():
    rng = random.Random(2)
    for _ in range(400):
        pieces = [bytes(rng.choices(b"ab\n", k=rng.randint(1, 3))) for _ in range(rng.randint(1, 12))]
        stop = bytes(rng.choices(b"ab\n", k=rng.randint(1, 5))).decode()
        whole = b"".join(pieces).decode()
        steps, text, seen = run(pieces, stop=[stop])
        at = whole.find(stop)
        assert text == (whole if at < 0 else whole[:at])
        assert steps[-1].stop == ("end" if at < 0 else "stop")
        kept, length = [0], 0
        for number, piece in enumerate(pieces, start=1):
            length += len(piece)
            if 0 <= at < length:
                break
            kept.append(number)
        assert seen == kept, (pieces, stop)


def test_closing_the_iterator_leaves_all_yielded_tokens_in_the_state():
    model = Says([b"a", b"b", b"c", b"d"])
    state = model.new_state()
    steps = generate(model, [0], sampling=GREEDY, state=state)
    assert [next(steps).text, next(steps).text] == ["a", "b"]
    steps.close()
    assert fed(state) == [0, 1, 2]
    assert [step.text for step in generate(model, [3], sampling=GREEDY, state=state)] == ["d", ""]


def test_an_empty_prompt_starts_from_the_end_of_a_document():
    model = Says([b"a"])
    state = model.new_state()
    assert "".join(step.text for step in generate(model, "", sampling=GREEDY, state=state)) == "a"
    assert fed(state) == [0, 1]
    with pytest.raises(OptionError, match="empty"):
        generate(model, "", state=state)


def test_a_log_probability_comes_with_each_step():
    steps, _, _ = run([b"a", b"b"])
    assert all(-0.1 < step.logprob <= 0 for step in steps)


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 0}, {"max_tokens": True}, {"max_tokens": 1.5}, {"stop": [""]}, {"stop": "x"}]
)
def test_options_that_cannot_be_meant_are_refused_before_anything_is_fed(wrong):
    with pytest.raises(OptionError):
        generate(Says([b"a"]), [0], **wrong)
    with pytest.raises(OptionError, match="prompt"):
        generate(Says([b"a"]), None)


class Event:
    """Set after it was asked `after` times."""

    def __init__(self, after):
        self.left = after

    def is_set(self):
        self.left -= 1
        return self.left < 0


def test_a_cancelled_text_ends_with_all_that_was_yielded_in_the_state():
    model = Says([b"a", b"b", b"c", b"d"])
    state, event = model.new_state(), threading.Event()
    steps = []
    for step in generate(model, [0], sampling=GREEDY, state=state, cancel=event):
        steps.append(step)
        if step.token == 2:
            event.set()
    assert [(step.token, step.text, step.stop) for step in steps] == [
        (1, "a", None),
        (2, "b", None),
        (None, "", "cancelled"),
    ]
    assert fed(state) == [0, 1, 2]


def test_a_cancelled_text_shows_what_was_held_back():
    model = Says([b"a", b"b", b"c"])
    event = threading.Event()
    shown = ""
    for step in generate(model, [0], sampling=GREEDY, stop=["bX"], cancel=event):
        shown += step.text
        if step.token == 2:
            assert shown == "a"
            event.set()
    assert (shown, step.stop) == ("ab", "cancelled")


def test_a_long_prompt_can_be_cancelled_between_chunks_and_the_state_says_how_far_it_got(embedded):
    tokens = [5 + i % 900 for i in range(5 * CHUNK + 3)]
    state, other = embedded.new_state(), embedded.new_state()
    (step,) = embedded.generate(tokens, state=state, cancel=Event(2))
    assert (step.stop, step.text, state.position) == ("cancelled", "", 2 * CHUNK)
    embedded.feed(tokens[: 2 * CHUNK], other)
    assert state == other
    steps = list(
        embedded.generate(
            tokens[2 * CHUNK :], state=state, max_tokens=3, sampling=GREEDY, cancel=threading.Event()
        )
    )
    assert steps == list(embedded.generate(tokens, max_tokens=3, sampling=GREEDY))


def test_another_thread_ends_a_text_soon(embedded):
    event = threading.Event()
    threading.Timer(0.2, event.set).start()
    *_, last = embedded.generate(
        "Once", max_tokens=None, sampling=Sampling(banned=(embedded.tokenizer.end,)), cancel=event
    )
    assert last.stop == "cancelled"


def test_alternatives_are_the_likeliest_tokens_in_order(embedded):
    steps = list(embedded.generate("Tom has a red", max_tokens=4, sampling=GREEDY, alternatives=3))
    plain = list(embedded.generate("Tom has a red", max_tokens=4, sampling=GREEDY))
    logits = embedded.feed(embedded.tokenizer.encode("Tom has a red"), embedded.new_state()).astype(
        np.float64
    )
    logprobs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    expected = np.argsort(-logprobs, kind="stable")[:3]
    assert [token for token, _ in steps[0].alternatives] == expected.tolist()
    assert np.allclose([logprob for _, logprob in steps[0].alternatives], logprobs[expected], atol=1e-5)
    for step, without in zip(steps, plain, strict=True):
        assert step.alternatives[0] == (step.token, pytest.approx(step.logprob, abs=1e-5))
        assert (step.token, without.alternatives) == (without.token, ())


def test_more_alternatives_than_tokens_are_all_of_them():
    steps = list(generate(Says([b"a", b"b"]), [0], sampling=GREEDY, alternatives=99))
    assert [sorted(token for token, _ in step.alternatives) for step in steps] == [[0, 1, 2]] * 3
    for wrong in (-1, True, 1.5):
        with pytest.raises(OptionError, match="alternatives"):
            generate(Says([b"a"]), [0], alternatives=wrong)


def test_the_progress_of_a_long_prompt_is_told_until_its_last_piece(embedded):
    told, ids = [], [5] * 200
    steps = embedded.generate(ids, max_tokens=1, progress=lambda done, total: told.append((done, total)))
    assert told == [], "nothing is read before the first step is asked for"
    next(steps)
    assert told == [(64, 200), (128, 200), (192, 200)]
    told.clear()
    next(embedded.generate(ids[:64], max_tokens=1, progress=lambda done, total: told.append(done)))
    assert told == []
