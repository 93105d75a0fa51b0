"""The recipe of the embedded model: the same seed gives the same texts, answers are right, contradictions are
found.
"""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from rwkv_engine_weights.recipe import consistency, corpus, evaluate
from rwkv_engine_weights.recipe.stories import story
from rwkv_engine_weights.recipe.tasks import TASKS
from rwkv_engine_weights.recipe.world import BOYS, GIRLS

TORCH = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("torch"), reason="torch (extra `train`) is not installed"
)


def text(pieces):
    return "".join(piece for piece, _ in pieces)


@pytest.mark.parametrize("mix", corpus.PROSE)
def test_the_same_seed_gives_the_same_documents(mix):
    first, again, other = (
        [text(corpus.document(rng, mix)) for _ in range(20)] for rng in map(random.Random, (1, 1, 2))
    )
    assert first == again != other


def test_talks_have_the_world_form():
    for seed in range(50):
        pieces = corpus.chat(random.Random(seed), 4, 2)
        turns = text(pieces).split("\n\n")
        assert len(turns) == 8
        assert all(turn.startswith(("User: ", "Assistant: ")[i % 2]) for i, turn in enumerate(turns))
        assert pieces[-1][1] == corpus.ANSWER_WEIGHT


def test_pairs_ask_for_each_name_once_and_the_answer_is_what_belongs_to_it():
    for seed in range(50):
        pieces = corpus.pairs(random.Random(seed))
        told = pieces[: len(pieces) // 3]
        asked = list(zip(pieces[len(told) :: 2], pieces[len(told) + 1 :: 2], strict=True))
        around = asked[0][0][0].startswith(" Who")
        facts = {(words[0], words[-1]) for words in (sentence.split() for sentence, _ in told)}
        assert len(told) == len(asked) >= 4
        if around:
            assert {
                (answer.strip(), name.rstrip("?").split()[-1]) for (name, _), (answer, _) in asked
            } == facts
        else:
            assert {(name.split()[0], answer.strip()) for (name, _), (answer, _) in asked} == facts
        assert {weight for _, (_, weight) in asked} == {corpus.ANSWER_WEIGHT}


def test_recall_tells_everything_first_and_asks_nothing_twice():
    for seed in range(50):
        turns = text(corpus.recall_chat(random.Random(seed))).split("\n\n")
        first, *questions = [turn.removeprefix("User: ") for turn in turns[::2]]
        questions.append(first.rsplit(". ", 1)[1])
        assert len(set(questions)) == len(questions) and all(question.endswith("?") for question in questions)


def test_questions_are_about_what_was_told():
    for question in evaluate.near_questions(3, 300):
        assert question.prompt.endswith("\n\nAssistant:") and question.answer
        if question.task in ("colour", "pet", "owner", "where", "count", "favourite"):
            assert question.answer.rstrip(".").split()[-1] in question.prompt


def test_every_task_is_asked():
    assert {question.task for question in evaluate.near_questions(4, 400)} >= set(TASKS)


def test_stories_of_the_grammar_do_not_contradict_themselves():
    assert [
        found
        for seed in range(2000)
        for found in consistency.contradictions(" ".join(story(random.Random(seed))))
    ] == []


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("Once upon a time there was a kind girl named Tom.", "called a girl"),
        ("Once upon a time there was a kind girl named Mia. He had a red ball.", "pronoun"),
        (
            "Once upon a time there was a kind girl named Mia. She had a red ball. One day Mia went to the park with the blue ball.",
            "was red",
        ),
        (
            "Once upon a time there was a kind girl named Mia. Mia had a red ball. One day Anna went to the park with the red ball.",
            "introduced",
        ),
        (
            "Once upon a time there was a girl named Mia. Mia had a red ball. There Mia met her friend Tom. Tom gave the ball to Mia.",
            "not have",
        ),
        (
            "Once upon a time there was a girl named Mia. Mia had a red ball. There Mia met her friend Tom. Now Tom had the red ball.",
            "not have",
        ),
        ("Once upon a time there was a girl named Mia. There Mia met his friend Tom.", "pronoun"),
        ("Once upon a time there was a girl named Mia. There Mia met her friend Mia.", "meets"),
    ],
)
def test_a_planted_contradiction_is_found(bad, why):
    assert any(why in found for found in consistency.contradictions(bad))


def test_a_batch_has_shapes_weights_and_shifted_targets(embedded):
    class Tokens:
        def encode(self, piece, add_special_tokens):
            return type("Encoding", (), {"ids": embedded.tokenizer.encode(piece)})

    inputs, targets, weights = corpus.batch(random.Random(1), corpus.Encoder(Tokens()), 3, 100, "mixed")
    assert inputs.shape == targets.shape == weights.shape == (3, 100)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    assert set(np.unique(weights)) <= {
        np.float32(w) for w in (0, corpus.SAID_WEIGHT, corpus.TEXT_WEIGHT, corpus.ANSWER_WEIGHT)
    }


def test_pieces_are_encoded_as_the_whole_text_is(embedded):
    for seed in range(30):
        pieces = corpus.document(random.Random(seed), "mixed")
        apart = [token for piece, _ in pieces for token in embedded.tokenizer.encode(piece)]
        assert apart == embedded.tokenizer.encode(text(pieces))


@TORCH
def test_the_recurrences_gradient_is_that_of_a_float64_loop():
    import torch
    from rwkv_engine_weights.recipe.recurrence import Recurrence

    torch.manual_seed(0)
    shape = (2, 37, 2, 64)
    unit = torch.nn.functional.normalize(torch.randn(shape), dim=-1)
    start = [
        torch.randn(shape),
        torch.rand(shape) * 0.4 + 0.6,
        torch.randn(shape),
        torch.randn(shape),
        -unit,
        unit * torch.rand(shape),
    ]
    slow, fast = [x.double().requires_grad_() for x in start], [x.clone().requires_grad_() for x in start]
    r, w, k, v, a, b = slow
    S, rows = torch.zeros(2, 2, 64, 64, dtype=torch.float64), []
    for t in range(shape[1]):
        removed = (S * a[:, t, :, None, :]).sum(-1)
        S = (
            S * w[:, t, :, None, :]
            + removed[..., None] * b[:, t, :, None, :]
            + v[:, t, :, :, None] * k[:, t, :, None, :]
        )
        rows.append((S * r[:, t, :, None, :]).sum(-1))
    want, got, above = torch.stack(rows, 1), Recurrence.apply(*fast), torch.randn(shape)
    want.backward(above.double())
    got.backward(above)
    assert (want - got).abs().max() < 1e-5 * want.abs().max()
    for s, f in zip(slow, fast, strict=True):
        assert (s.grad - f.grad).abs().max() < 1e-5 * s.grad.abs().max()


@TORCH
def test_the_network_that_is_trained_is_the_one_that_the_engine_runs(tmp_path):
    import torch
    from rwkv_engine_weights.recipe.export import export
    from rwkv_engine_weights.recipe.network import Network, Sizes

    import rwkv_engine

    torch.manual_seed(1)
    network = Network(Sizes(vocab=256, layers=2, width=128, ffn=256))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05).copy_(parameter.to(torch.bfloat16))
    torch.save({"network": network.state_dict()}, tmp_path / "checkpoint.pt")
    export(tmp_path, tmp_path / "model.safetensors")
    model = rwkv_engine.load(tmp_path / "model.safetensors")
    tokens = torch.randint(0, 256, (1, 40))
    want = network(tokens)[0].detach().numpy()
    got = model.feed(tokens[0].tolist(), model.new_state(), every=True)
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("people", [1, 2, 4])
def test_what_is_told_together_is_one_fact_about_each_person_and_the_answer_is_the_asked_ones(people):
    for question in evaluate.told_together(3, 50, people):
        told = [name for name in GIRLS + BOYS if name in question.prompt.rsplit(". ", 1)[0]]
        assert len(told) == people
        asked = next(name for name in told if name in question.prompt.rsplit(". ", 1)[1])
        fact = next(s for s in question.prompt.removeprefix("User: ").split(".") if asked in s)
        value = question.answer.removesuffix(" best.").rstrip(".").split(f"{asked} ")[1].split()[-1]
        assert question.answer.startswith(asked) and value in fact


@TORCH
def test_the_largest_threshold_for_giving_memory_back_is_set(monkeypatch):
    from rwkv_engine_weights.recipe import loop

    told = {}
    monkeypatch.setattr(loop.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=told.__setitem__))
    monkeypatch.setattr(loop.sys, "platform", "linux")
    loop.keep_memory()
    assert told[-1] == 2**31 - 1
