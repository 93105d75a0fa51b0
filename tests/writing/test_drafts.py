"""Drafts never change a text: whatever is drafted, tokens, texts and states are those of a text that is
written without drafts.
"""

import random

import numpy as np
import pytest
from test_generate import Says

from rwkv_engine import Batch, Constraint, OptionError, Sampling
from rwkv_engine.formats import FORMATS
from rwkv_engine.writing import batch as batches
from rwkv_engine.writing import generate as generating
from rwkv_engine.writing.drafts import Drafting, ModelDrafts, NGrams, drafting
from rwkv_engine.writing.pace import LONGEST, Costs, Pace

FAMILIES = ("4", "5.0", "5.1", "5.2", "6", "7")
GREEDY = Sampling(temperature=0)


class Guesses:
    """Drafts what a text will be, known from before, with mistakes: a token is right with probability
    `right`.
    """

    first = (0.5,)

    def __init__(self, prompt, tokens, right, rng, vocab):
        self._tokens, self._right, self._rng, self._vocab = tokens, right, rng, vocab
        self._at = -len(prompt)

    def add(self, tokens):
        self._at += len(tokens)

    def kind(self):
        return 0

    def draft(self, count):
        coming = [*self._tokens[max(0, self._at) :], *([1] * count)][:count]
        return [t if self._rng.random() < self._right else self._rng.randrange(self._vocab) for t in coming]

    def fork(self):
        return self


class AnyLength(Pace):
    """Drafts of any length, whether they pay or not."""

    __slots__ = ("_rng",)

    def __init__(self, rng):
        super().__init__(Costs(), (0.5,))
        self._rng = rng

    def length(self, kind, most, beside):
        return self._rng.randint(0, most)


def wish(rng, vocab, seed, constraints):
    """A prompt and options, drawn at random."""
    prompt = [rng.randrange(1, vocab) for _ in range(rng.choice([1, 2, 5, 40, 70]))]
    sampling = Sampling(
        temperature=rng.choice([0.0, 0.7, 1.3]),
        top_p=rng.choice([0.3, 0.9, 1.0]),
        top_k=rng.choice([0, 5]),
        presence=rng.choice([0.0, 0.4]),
        frequency=rng.choice([0.0, 0.3]),
        bias={3: 1.5} if rng.random() < 0.2 else (),
        seed=seed,
    )
    options = {"max_tokens": rng.randint(8, 40), "sampling": sampling, "alternatives": rng.choice([0, 2])}
    if rng.random() < 0.4:
        options["stop"] = [rng.choice(["a", "e", "he", "1", "the", " t"])]
    elif constraints and rng.random() < 0.4:
        options["constraint"] = rng.choice(constraints)
        options["max_tokens"] = rng.randint(20, 40)
    return prompt, options


def shown(steps):
    return [(s.token, s.text, s.stop, s.alternatives, s.logprob) for s in steps]


def alone(model, prompt, options, draft=None):
    state = model.new_state()
    return list(model.generate(prompt, state=state, draft=draft, **options)), state


def together(model, wishes, drafts, count):
    """The steps and states of every wish, written `count` at a time."""
    states, batch = [model.new_state() for _ in wishes], Batch(model, max_sequences=count)
    waiting, of, steps = list(range(len(wishes))), {}, [[] for _ in wishes]
    while waiting or len(batch):
        while waiting and len(batch) < count:
            number = waiting.pop(0)
            prompt, options = wishes[number]
            of[batch.add(prompt, state=states[number], draft=drafts[number], **options)] = number
        for ticket, step in batch.step():
            steps[of[ticket]].append(step)
    return list(zip(steps, states, strict=True))


def compare(monkeypatch, model, seed, runs, constraints=(), small=None, exact=True):
    """`runs` random texts with forced drafts, n-grams or a small model, each alone or in a batch, against the
    text without drafts.
    """
    rng = random.Random(seed)
    monkeypatch.setattr(batches, "drafting", given)
    monkeypatch.setattr(generating, "drafting", given)
    accepted = done = 0
    while done < runs:
        count = rng.choice([1, 1, 1, 2, 3, 5])
        wishes = [wish(rng, model.vocab, seed * 1000 + done + n, constraints) for n in range(count)]
        plain = [alone(model, *one) for one in wishes]
        drafts = [
            rng.choice(["ngram", small or "ngram", *[forced(rng, model, prompt, steps)] * 3])
            for (prompt, _), (steps, _) in zip(wishes, plain, strict=True)
        ]
        batched = rng.random() < 0.5
        if batched:
            found = together(model, wishes, drafts, rng.randint(1, count))
        else:
            found = [alone(model, *one, draft) for one, draft in zip(wishes, drafts, strict=True)]
        for (steps, state), (expected, end) in zip(found, plain, strict=True):
            if batched and not exact:  # a batch cuts prompts in other places, with drafts or without
                assert [s[:3] for s in shown(steps)] == [s[:3] for s in shown(expected)]
                assert state.position == end.position and np.allclose(state.block, end.block, 1e-3, 1e-3)
            else:
                assert shown(steps) == shown(expected)
                assert state == end
            accepted += steps[-1].usage.accepted
        done += count
    return accepted


def forced(rng, model, prompt, steps):
    tokens = [step.token for step in steps if step.token is not None]
    return Drafting(
        Guesses(prompt, tokens, rng.choice([0.0, 0.5, 0.8, 1.0]), rng, model.vocab), AnyLength(rng)
    )


def given(draft, model, before=()):
    """`drafting`, that takes what drafts as well."""
    if isinstance(draft, Drafting):
        draft.drafts.add(list(before))
        return draft
    return drafting(draft, model, before)


@pytest.mark.slow_but("f32-", "int8-7", "int4-7")
@pytest.mark.parametrize("version", FAMILIES)
@pytest.mark.parametrize("weights", FORMATS)
def test_a_text_of_every_family_and_format_is_the_same_with_drafts(load, monkeypatch, version, weights):
    model, _ = load(version, weights=weights)
    assert compare(monkeypatch, model, seed=int(float(version) * 10), runs=6) > 0


def test_text_and_state_of_the_embedded_model_are_the_same_with_drafts(embedded, monkeypatch):
    constraints = [Constraint.regex("[0-9]{3,9}"), Constraint.choice(["red ball", "blue ball", "kite"])]
    assert compare(monkeypatch, embedded, 7, 12, constraints, small=embedded) > 10


@pytest.mark.slow
@pytest.mark.parametrize("version", FAMILIES)
@pytest.mark.parametrize("weights", FORMATS)
def test_many_texts_of_wide_models_are_the_same_with_drafts(load, monkeypatch, version, weights):
    # more than 512 rows: these are the matrices that a float format adds up in another order for many tokens
    model, _ = load(version, weights=weights, heads=10, head_size=64, threads=2)
    compare(monkeypatch, model, seed=3, runs=18, exact=FORMATS[weights].quantized)


@pytest.mark.slow
def test_many_texts_of_the_embedded_model_are_the_same_with_drafts(embedded, monkeypatch):
    constraints = [Constraint.regex("[0-9]{3,9}"), Constraint.choice(["red ball", "blue ball", "kite"])]
    compare(monkeypatch, embedded, 11, 80, constraints, small=embedded, exact=False)


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_states_kept_on_the_way_are_those_of_single_tokens(load, weights):
    model, _ = load("7", weights=weights, heads=10, head_size=64)
    ids = np.random.default_rng(1).integers(1, model.vocab, LONGEST).tolist()
    one, many, kept, states, rows = model.new_state(), model.new_state(), [], [], []
    for token in ids:
        rows.append(model.feed([token], one))
        states.append(one.fork())
    kept = [model.new_state() for _ in ids[1:]]
    logits = model.feed_batch([(ids, many)], kept=[kept])
    assert np.array_equal(logits, rows)
    assert [*kept, many] == states


def test_a_text_that_is_dropped_between_two_drafted_tokens_has_the_state_of_what_was_yielded(
    embedded, monkeypatch
):
    monkeypatch.setattr(generating, "drafting", given)
    plain, _ = alone(embedded, [5, 6, 7], {"sampling": GREEDY, "max_tokens": 20})
    ids = [step.token for step in plain]
    for count in range(1, 12):
        rng = random.Random(count)
        draft = Drafting(Guesses([5, 6, 7], ids, 1.0, rng, embedded.vocab), AnyLength(rng))
        state, expected = embedded.new_state(), embedded.new_state()
        view = state["wkv"]
        steps = embedded.generate([5, 6, 7], sampling=GREEDY, max_tokens=20, state=state, draft=draft)
        for _ in range(count):
            next(steps)
        steps.close()
        embedded.skim([5, 6, 7], expected)
        for token in ids[:count]:
            embedded.skim([token], expected)
        assert state == expected
        assert np.array_equal(view, state["wkv"])  # the block that the caller has is the state's again


def test_ngrams_draft_what_followed_the_longest_run():
    drafts = NGrams()
    drafts.add([1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert drafts.kind() == -1 and drafts.draft(3) == []
    drafts.add([2, 3])
    assert drafts.draft(3) == []  # a run of two was seen only once
    drafts.add([4, 5])
    assert drafts.kind() == 1 and drafts.draft(9) == [6, 7, 8, 9, 2, 3, 4, 5, 6]  # round and round
    twin = drafts.fork()
    twin.add([0])
    assert twin.kind() == -1 and drafts.kind() == 1


def test_ngrams_end_a_draft_where_the_text_went_on_differently():
    drafts = NGrams()
    for number in range(3):
        drafts.add([1, 2, 3, 4, 100 + number, 5, 6])
    drafts.add([1, 2])
    assert drafts.draft(9) == [3, 4]


def test_a_small_model_drafts_what_it_would_write_and_reads_each_token_once(embedded, monkeypatch):
    read = []
    feed = type(embedded).feed
    monkeypatch.setattr(
        type(embedded), "feed", lambda self, ids, s: (read.extend(ids), feed(self, ids, s))[1]
    )
    steps, _ = alone(embedded, [5, 6, 7], {"sampling": GREEDY, "max_tokens": 8})
    ids = [step.token for step in steps]
    read.clear()
    drafts = ModelDrafts(embedded)
    drafts.add([5, 6, 7])
    assert drafts.draft(4) == ids[:4]
    drafts.add([*ids[:2], ids[2] + 1])  # the third was not right
    drafts.draft(1)
    assert read == [5, 6, 7, *ids[:3], ids[2] + 1]


def test_odd_drafts_are_refused_in_one_sentence(embedded):
    for wrong in ("ngrams", 7, ""):
        with pytest.raises(OptionError, match="draft: got"):
            embedded.generate("x", draft=wrong)
    with pytest.raises(OptionError, match="draft: that model has another vocabulary"):
        embedded.generate("x", draft=Says([b"a"]))
    batch = Batch(embedded)
    with pytest.raises(OptionError, match="draft"):
        batch.add("x", draft="ngrams")
    assert len(batch) == 0


def test_steps_say_how_many_drafted_tokens_were_accepted(embedded, monkeypatch):
    monkeypatch.setattr(generating, "drafting", given)
    options = {"sampling": GREEDY, "max_tokens": 17}
    plain, _ = alone(embedded, [5], options)
    assert (plain[-1].usage.drafted, plain[-1].usage.tokens_per_pass) == (0, 1)
    rng = random.Random(1)
    draft = Drafting(Guesses([5], [s.token for s in plain], 1.0, rng, embedded.vocab), AnyLength(rng))
    usage = alone(embedded, [5], options, draft)[0][-1].usage
    assert usage.tokens == len(plain) and 0 < usage.accepted <= usage.drafted
    assert usage.tokens_per_pass == usage.tokens / (usage.tokens - usage.accepted) > 1.5
    assert usage.acceptance == usage.accepted / usage.drafted
