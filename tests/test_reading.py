"""What a model tells about a text that is there: tokens, probabilities, a vector; ids of every kind; pickled
models and states.
"""

import copy
import pickle
import sys
import threading

import numpy as np
import pytest

import rwkv_engine
from rwkv_engine import Sampling, State, StateError, TokenError
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.text import Bytes, World
from rwkv_engine.text.chat import template_named

TEXT = "Tom has the ball. Mia is in the park. " * 12


def test_a_count_is_the_tokenizers(embedded):
    assert embedded.count(TEXT) == len(embedded.tokenizer.encode(TEXT)) > CHUNK
    for wrong in (None, b"bytes", 5, ["text"]):
        with pytest.raises(TokenError, match="want a str"):
            embedded.count(wrong)


def test_a_score_is_the_log_probability_of_each_token_given_those_before(embedded):
    ids = embedded.tokenizer.encode(TEXT)
    logits = embedded.feed([embedded.tokenizer.end, *ids[:-1]], embedded.new_state(), every=True)
    wanted = [
        row[token] - np.logaddexp.reduce(row.astype(np.float64))
        for row, token in zip(logits, ids, strict=True)
    ]
    got = embedded.score(TEXT)
    assert got.shape == (len(ids),) and got.dtype == np.float32 and (got < 0).all()
    assert np.allclose(got, wanted, atol=2e-3)
    assert np.array_equal(embedded.score(np.array(ids)), got)


def test_a_score_behind_a_context_leaves_the_context_out(embedded):
    context, rest = "Tom has the ball. Who has the ball?", " Tom"
    one, other = embedded.score(rest, context), embedded.score(" park", context)
    assert len(one) == embedded.count(rest) and one.sum() > other.sum()
    logits = embedded.feed(embedded.tokenizer.encode(context), embedded.new_state())
    first = embedded.tokenizer.encode(rest)[0]
    assert abs(one[0] - (logits[first] - np.logaddexp.reduce(logits))) < 2e-3


def test_a_vector_is_the_mean_of_the_hidden_ones_and_texts_alike_lie_near(embedded):
    vectors = embedded.embed([TEXT, "Tom has a ball.", "Tom has the ball.", "One day it rained."])
    assert vectors.shape == (4, embedded.config.width) and vectors.dtype == np.float32
    _, hidden = embedded.feed_hidden(embedded.tokenizer.encode(TEXT), embedded.new_state(), every=True)
    assert np.allclose(vectors[0], hidden.mean(axis=0), atol=2e-3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unit[1] @ unit[2] > unit[1] @ unit[3]
    assert np.array_equal(embedded.embed("Tom has a ball.")[0], vectors[1])
    assert embedded.embed([]).shape == (0, embedded.config.width)


@pytest.mark.parametrize("texts", [[""], [[]], b"bytes", [b"bytes"], None, [None], [["a"]], [[99999]]])
def test_what_has_no_vector_is_refused(embedded, texts):
    with pytest.raises(TokenError):
        embedded.embed(texts)


def kinds(ids):
    yield ids
    yield tuple(ids)
    yield np.array(ids)
    yield np.array(ids, np.uint16)
    yield (token for token in ids)
    yield dict.fromkeys(ids)


def test_ids_of_every_kind_are_read_alike_everywhere(embedded):
    ids = [40, 41, 42]
    wanted = embedded.feed(ids, embedded.new_state())
    greedy = {"max_tokens": 3, "sampling": Sampling(temperature=0)}
    written = [step.token for step in embedded.generate(ids, **greedy)]
    for given in kinds(ids):
        assert np.array_equal(embedded.feed(given, embedded.new_state()), wanted)
    for given in kinds(ids):
        assert [step.token for step in embedded.generate(given, **greedy)] == written
    for tokenizer in (embedded.tokenizer, World(), Bytes()):
        assert {tokenizer.decode(given) for given in kinds(ids)} == {tokenizer.decode(ids)}


@pytest.mark.parametrize(
    "wrong", [b"abc", bytearray(b"a"), "abc", None, 5, [1.5], [[1], [2, 3]], [None], ["a"], [True], [2**70]]
)
def test_what_is_no_list_of_ids_is_refused_in_one_sentence_everywhere(embedded, wrong):
    uses = [
        lambda: embedded.feed(wrong, embedded.new_state()),
        lambda: embedded.feed_batch([(wrong, embedded.new_state())]),
        lambda: embedded.tokenizer.decode(wrong),
        lambda: World().decode(wrong),
    ]
    if not isinstance(wrong, str):
        uses += [lambda: next(embedded.generate(wrong)), lambda: embedded.score(wrong)]
    for use in uses:
        with pytest.raises(rwkv_engine.EngineError) as refused:
            use()
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 200


def test_a_state_goes_into_bytes_and_back(embedded, load):
    state = embedded.new_state()
    embedded.skim([1, 2, 3], state)
    data = state.to_bytes()
    again = State.from_bytes(data, embedded)
    assert again == state and again.position == 3
    embedded.feed([4], again)
    assert again != state
    for wrong in (data[:-4], data[:100], b"", bytes([data[0] ^ 1]) + data[1:], "text", None):
        with pytest.raises(StateError):
            State.from_bytes(wrong, embedded)
    with pytest.raises(StateError, match="another model"):
        State.from_bytes(data, load("7")[0])


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))]
)
def test_a_copy_of_a_state_has_numbers_of_its_own(embedded, copied):
    state = embedded.new_state()
    embedded.skim([1, 2], state)
    before, twin = state.fork(), copied(state)
    assert twin == state and twin.address == twin.block.ctypes.data != state.address
    assert np.array_equal(embedded.feed([3], twin), embedded.feed([3], before))
    assert state != twin and state.position == 2


def test_a_pickled_model_is_opened_again_by_its_path(load, monkeypatch, tmp_path):
    model = load("7", weights="f32")[0]
    data = pickle.dumps(model)
    assert len(data) < 2000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(data)
    assert (again.fingerprint, again.format, again.lanes) == (model.fingerprint, "f32", model.lanes)
    assert np.array_equal(again.feed([1, 2], again.new_state()), model.feed([1, 2], model.new_state()))


def test_things_say_what_they_are(embedded, tmp_path):
    state = embedded.new_state()
    embedded.skim([1], state)
    assert repr(state) == f"State(1 tokens read, 203 KB, model {embedded.fingerprint[:12]})"
    assert repr(embedded).startswith("Model('model.safetensors': RWKV-7, ") and "bf16" in repr(embedded)
    conversation = rwkv_engine.Conversation(embedded, template_named("world"))
    assert repr(conversation) == "Conversation(0 turns, 0 tokens, template 'world')"
    assert str(tmp_path) in repr(rwkv_engine.PrefixCache(tmp_path))
    assert repr(rwkv_engine.Batch(embedded)) == "Batch(0 of at most 32 texts under way)"


def test_a_state_that_cannot_be_saved_is_named(embedded, tmp_path):
    for path in (tmp_path / "no-such-folder" / "s", tmp_path, "nul\0"):
        with pytest.raises(StateError, match="cannot be saved") as refused:
            embedded.new_state().save(path)
        assert refused.value.path == str(path)


def test_a_tilde_is_the_home_folder(embedded, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    embedded.new_state().save("~/s.safetensors")
    assert (tmp_path / "s.safetensors").is_file()
    assert embedded.load_state("~/s.safetensors") == embedded.new_state()
    (tmp_path / "m.safetensors").symlink_to(embedded.checkpoint.path)
    (tmp_path / "tokenizer.json").symlink_to(embedded.checkpoint.path.parent / "tokenizer.json")
    assert rwkv_engine.describe("~/m.safetensors").family == "RWKV-7"
    assert (
        rwkv_engine.load("~/m.safetensors", tokenizer="~/tokenizer.json").fingerprint == embedded.fingerprint
    )
    rwkv_engine.quantize("~/m.safetensors", "~/packed.safetensors")
    assert (tmp_path / "packed.safetensors").is_file()
    assert rwkv_engine.PrefixCache("~/cache").folder == tmp_path / "cache"


def test_a_state_that_two_threads_feed_is_refused_and_never_mixed(embedded):
    """As many passes as were not refused have moved it, one after another."""
    state, done, refused = embedded.new_state(), [], []

    def feed():
        for _ in range(100):
            try:
                embedded.skim([7], state)
                done.append(1)
            except StateError:
                refused.append(1)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=feed) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert state.position == len(done) > 0 and len(done) + len(refused) == 400
    alone = embedded.new_state()
    embedded.skim([7] * len(done), alone)
    assert np.allclose(state.block, alone.block, atol=1e-3)
