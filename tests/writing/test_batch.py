"""`Batch`: many texts in one pass are each what they are alone, whoever joins, leaves or fails beside them."""

import random

import numpy as np
import pytest
from test_generate import Says, fed

import rwkv_engine
from rwkv_engine import Batch, Constraint, OptionError, PrefixCache, Sampling, StateError, TokenError
from rwkv_engine.formats import FORMATS
from rwkv_engine.numbers.shapes import CHUNK

GREEDY = Sampling(temperature=0)


def alone(model, prompt, **options):
    """(steps, state) of a text written by itself."""
    state = model.new_state()
    return list(model.generate(prompt, state=state, **options)), state


def shown(steps):
    return [(step.token, step.text, step.stop) for step in steps]


def wish(rng, vocab, seed):
    """A prompt and options, drawn at random."""
    length = rng.choice([1, 2, 5, 40, CHUNK, CHUNK + 1, 150])
    prompt = [rng.randrange(1, vocab) for _ in range(length)]
    sampling = Sampling(
        temperature=rng.choice([0.0, 0.8, 1.3]),
        top_p=rng.choice([0.5, 0.9, 1.0]),
        top_k=rng.choice([0, 5]),
        presence=rng.choice([0.0, 0.4]),
        frequency=rng.choice([0.0, 0.3]),
        seed=seed,
    )
    options = {"max_tokens": rng.randint(1, 25), "sampling": sampling, "alternatives": rng.choice([0, 2])}
    if rng.random() < 0.4:
        options["stop"] = [rng.choice(["a", "e", "he", "1", " t"])]
    return prompt, options


def together(batch, wishes, rng, states=None):
    """The steps of every wish; texts join at random steps, some share a step."""
    waiting, of, steps = list(range(len(wishes))), {}, {}
    rng.shuffle(waiting)
    while waiting or len(batch):
        while waiting and len(batch) < batch.max_sequences and rng.random() < 0.6:
            number = waiting.pop()
            prompt, options = wishes[number]
            state = states[number] if states is not None else None
            of[batch.add(prompt, state=state, **options)] = number
        for ticket, step in batch.step():
            steps.setdefault(of[ticket], []).append(step)
    return [steps[number] for number in range(len(wishes))]


def check(model, vocab, count, seed, **options):
    rng = random.Random(seed)
    wishes = [wish(rng, vocab, number) for number in range(count)]
    states = [model.new_state() for _ in wishes]
    batch = Batch(model, **options)
    for (prompt, options), steps, state in zip(
        wishes, together(batch, wishes, rng, states), states, strict=True
    ):
        expected, end = alone(model, prompt, **options)
        assert shown(steps) == shown(expected)
        assert state.position == end.position
        assert all(np.allclose(state[name], end[name], rtol=1e-3, atol=1e-3) for name in state.names)
        assert steps[-1].usage.tokens == len([s for s in steps if s.token is not None])
        assert steps[-1].usage.prompt_tokens == len(prompt)


@pytest.mark.parametrize("seed", range(2))
def test_32_texts_of_the_embedded_model_are_each_what_they_are_alone(embedded, seed):
    check(embedded, embedded.vocab, 32, seed)


@pytest.mark.slow_but("f32-", "int8-7", "int4-7")
@pytest.mark.parametrize("version", ["4", "5.0", "5.1", "5.2", "6", "7"])
@pytest.mark.parametrize("weights", FORMATS)
def test_texts_of_every_family_and_format_are_each_what_they_are_alone(load, version, weights):
    model, _ = load(version, weights=weights)
    check(model, model.vocab, 12, 5, max_sequences=7, piece=16)


def test_constraints_and_stop_strings_hold_in_a_batch(embedded):
    number, word = Constraint.regex("[0-9]{3,9}"), Constraint.choice(["red ball", "blue ball", "kite"])
    wishes = [
        ("Tom has", {"constraint": number, "sampling": Sampling(seed=1), "max_tokens": 20}),
        ("Tom has a", {"constraint": word, "stop": ["ball"], "sampling": Sampling(seed=2), "max_tokens": 20}),
        ("Mia has a", {"sampling": Sampling(seed=3), "max_tokens": 30, "stop": ["."]}),
        ("Tom has a", {"constraint": word, "sampling": Sampling(seed=4), "max_tokens": 20}),
    ]
    for (prompt, options), steps in zip(
        wishes, together(Batch(embedded), wishes, random.Random(1)), strict=True
    ):
        assert shown(steps) == shown(alone(embedded, prompt, **options)[0])


def test_a_long_prompt_is_read_in_pieces_between_the_tokens_of_others(embedded):
    batch = Batch(embedded, piece=32)
    writing = batch.add(
        "Once upon a time", sampling=Sampling(seed=1, banned=(embedded.tokenizer.end,)), max_tokens=None
    )
    while not batch.step():
        pass
    long = batch.add([5 + i % 900 for i in range(320)], sampling=GREEDY, max_tokens=2)
    before = batch.state(long).position
    for number in range(1, 10):
        assert [ticket for ticket, _ in batch.step()] == [writing]
        assert batch.state(long).position == before + 32 * number
    assert [ticket for ticket, _ in batch.step()] == [writing, long]


def test_a_prompt_is_read_in_small_pieces_beside_few_texts_and_in_whole_passes_alone(embedded):
    endless = {"sampling": Sampling(seed=1, banned=(embedded.tokenizer.end,)), "max_tokens": None}
    for others, piece in ((0, CHUNK), (1, 16), (4, 24), (12, CHUNK - 12)):
        batch = Batch(embedded)
        for _ in range(others):
            batch.add("Once", **endless)
        while others and not batch.step():
            pass
        long = batch.add([5 + i % 900 for i in range(320)], sampling=GREEDY, max_tokens=2)
        batch.step()
        assert batch.state(long).position == piece


def test_many_prompts_share_the_piece_and_none_waits_for_another(embedded):
    batch = Batch(embedded, piece=CHUNK)
    tickets = [batch.add(list(range(1, 101)), sampling=GREEDY, max_tokens=1) for _ in range(4)]
    batch.step()
    assert [batch.state(ticket).position for ticket in tickets] == [CHUNK // 4] * 4


def test_a_cancelled_text_leaves_at_once_and_says_what_was_held_back():
    batch = Batch(Many([b"a", b"b", b"c"]))
    first, second = (batch.add([0], sampling=GREEDY, stop=["bX"]) for _ in range(2))
    text = "".join(step.text for _ in range(2) for ticket, step in batch.step() if ticket == first)
    last = batch.cancel(first)
    assert (text, last.token, last.text, last.stop, len(batch)) == ("a", None, "b", "cancelled", 1)
    assert all(ticket == second for ticket, _ in batch.step())
    for call in (batch.cancel, batch.state, batch.fork):
        with pytest.raises(OptionError, match="ticket"):
            call(first)


def test_a_fork_with_the_same_seed_writes_the_same_and_with_another_something_else(embedded):
    wishes = {
        "sampling": Sampling(temperature=1.5, top_p=1.0, seed=3, presence=0.3),
        "max_tokens": 30,
        "stop": ["zzz"],
    }
    batch = Batch(embedded)
    first = batch.add("Once upon a time", **wishes)
    steps = {first: [step for _ in range(6) for _, step in batch.step()]}
    same, other = batch.fork(first), batch.fork(first, seed=11)
    steps |= {same: list(steps[first]), other: list(steps[first])}
    while len(batch):
        for ticket, step in batch.step():
            steps[ticket].append(step)
    tokens = {ticket: [step.token for step in steps[ticket]] for ticket in steps}
    assert (
        tokens[first] == tokens[same] == [s.token for s in alone(embedded, "Once upon a time", **wishes)[0]]
    )
    assert tokens[other] != tokens[first]


def test_a_full_batch_and_odd_wishes_are_refused_and_add_nothing(embedded):
    batch = Batch(embedded, max_sequences=1)
    for wrong, error in (
        ({"prompt": [embedded.vocab]}, TokenError),
        ({"prompt": "x", "max_tokens": 0}, OptionError),
        ({"prompt": "x", "sampling": Sampling(banned=(embedded.vocab,))}, OptionError),
        ({"prompt": "x", "state": Says([b"a"]).new_state()}, StateError),
        ({"prompt": b"x"}, OptionError),
    ):
        with pytest.raises(error):
            batch.add(**wrong)
        assert len(batch) == 0
    ticket = batch.add("x")
    for full in (lambda: batch.add("y"), lambda: batch.fork(ticket)):
        with pytest.raises(OptionError, match="max_sequences"):
            full()
    for wrong in ({"max_sequences": 0}, {"piece": True}, {"piece": -1}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            Batch(embedded, **wrong)


def test_two_texts_cannot_move_one_state(embedded):
    batch, state = Batch(embedded), embedded.new_state()
    batch.add("x", state=state)
    with pytest.raises(OptionError, match="fork"):
        batch.add("y", state=state)


def test_a_text_that_cannot_go_on_ends_alone(embedded):
    batch = Batch(embedded)
    whole = Sampling(temperature=0, processors=(lambda logits, history: logits[:-1],))
    good, bad = batch.add("Tom has", sampling=GREEDY, max_tokens=3), batch.add("Tom has", sampling=whole)
    steps = {good: [], bad: []}
    while len(batch):
        for ticket, step in batch.step():
            steps[ticket].append(step)
    (last,) = steps[bad]
    assert last.stop == "failed" and isinstance(last.error, OptionError) and last.token is None
    assert shown(steps[good]) == shown(alone(embedded, "Tom has", sampling=GREEDY, max_tokens=3)[0])


def test_an_empty_batch_has_no_steps(embedded):
    assert Batch(embedded).step() == []


def test_a_batch_takes_known_prompts_from_the_prefix_cache_and_adds_to_it(embedded, tmp_path):
    cache, long = PrefixCache(tmp_path / "p", threshold=128), [token % 900 + 5 for token in range(700)]
    plain = alone(embedded, long, sampling=GREEDY, max_tokens=3)[0]
    for known in (0, (len(long) - 1) // CHUNK * CHUNK):
        batch = Batch(embedded)
        batch.add(long, sampling=GREEDY, max_tokens=3, prefix_cache=cache)
        batch.add("Tom", sampling=GREEDY, max_tokens=50)
        steps = []
        while len(batch):
            steps += [step for ticket, step in batch.step() if ticket == 1]
        assert shown(steps) == shown(plain) and steps[-1].usage.cached_tokens == known
    assert alone(embedded, long, sampling=GREEDY, max_tokens=3, prefix_cache=cache)[0] == plain  # bit for bit


def test_the_callers_state_is_behind_the_text_when_the_last_step_comes():
    for stop, most, kept in (((), 2, [0, 1, 2]), (["bc"], 9, [0, 1]), ((), 9, [0, 1, 2, 3])):
        model = Many([b"a", b"b", b"c"])
        batch, state = Batch(model), model.new_state()
        batch.add([0], sampling=GREEDY, max_tokens=most, stop=stop, state=state)
        while len(batch):
            batch.step()
        assert fed(state) == kept


def test_a_step_computes_logits_only_where_a_token_is_chosen(embedded, monkeypatch):
    seen = []
    run = type(embedded._machinery).run
    monkeypatch.setattr(
        type(embedded._machinery),
        "run",
        lambda self, *a, **k: (seen.append(len(a[3])), run(self, *a, **k))[1],
    )
    batch = rwkv_engine.Batch(embedded)
    endless = Sampling(temperature=0, banned=(embedded.tokenizer.end,))
    batch.add(list(range(1, 200)), sampling=endless, max_tokens=3)
    while len(batch):
        batch.step()
    assert seen == [0, 0, 0, 1, 1, 1]


class Many(Says):
    """Says, for a batch."""

    def own(self, state):
        pass

    def feed_batch(self, batch, wanted, kept=None):
        rows = [self.feed(tokens, state) for tokens, state in batch]
        return np.array([row for row, want in zip(rows, wanted, strict=True) if want])
