"""Errors: a sentence for people, and fields for programs."""

import pickle
from pathlib import Path

import numpy as np
import pytest

import rwkv_engine
from rwkv_engine import errors
from rwkv_engine.errors import EngineError, MissingTensor, OptionError, StateError, UnknownLayout, WrongShape

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EngineError)]


def test_the_docstring_draws_the_tree_of_all_errors():
    drawn = [
        line for line in errors.__doc__.splitlines() if "──" in line or line.startswith("    EngineError")
    ]
    names = {kind.__name__: kind for kind in KINDS}
    parents, seen = [], set()
    for line in drawn:
        name = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ").split()[0]
        depth = line.index(name) // 4 - 1
        parents = [*parents[:depth], name]
        assert depth == 0 or names[parents[-2]] in names[name].__bases__, line
        seen.add(name)
    assert seen == set(names)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_has_fields_beside_its_sentence_and_can_be_pickled(kind):
    error = kind("What, where.", path=Path("/a"), name="b", got=3, wanted=(1, 2))
    twin = pickle.loads(pickle.dumps(error))
    for one in (error, twin):
        assert (str(one), one.path, one.name, one.got, one.wanted) == ("What, where.", "/a", "b", 3, (1, 2))
    bare = kind("What.")
    assert (bare.path, bare.name, bare.got, bare.wanted) == (None,) * 4
    made = kind.of("threads", "x", "a number", "see the docs")
    assert str(made) == "threads: got 'x', want a number; see the docs"
    assert (made.name, made.got, made.wanted) == ("threads", "x", "a number")


def caught(kind, call):
    with pytest.raises(kind) as found:
        call()
    return found.value


def test_a_model_file_that_does_not_fit_says_which_file_and_which_tensor(
    checkpoints, tokenizer_file, tmp_path
):
    import models

    _, tensors = checkpoints("7")
    short = {name: tensor for name, tensor in tensors.items() if name != "blocks.0.att.w0"}
    wrong = {**tensors, "blocks.1.att.key.weight": np.zeros((3, 5), np.float32)}
    missing = models.write(tmp_path / "missing.safetensors", short, "F32")
    error = caught(MissingTensor, lambda: rwkv_engine.load(missing, tokenizer=tokenizer_file))
    assert (error.path, error.name) == (str(missing), "blocks.0.att.w0") and str(missing) in str(error)
    other = models.write(tmp_path / "wrong.safetensors", wrong, "F32")
    error = caught(WrongShape, lambda: rwkv_engine.load(other, tokenizer=tokenizer_file))
    assert (error.path, error.name, error.got) == (str(other), "blocks.1.att.key.weight", [3, 5])
    assert error.wanted and str(error.wanted) in str(error)
    (tmp_path / "text").write_text("This is no model.")
    for call in (rwkv_engine.load, rwkv_engine.describe):
        error = caught(UnknownLayout, lambda call=call: call(tmp_path / "text"))
        assert error.path == str(tmp_path / "text") and str(error).count(error.path) == 1


def test_a_state_that_does_not_fit_says_which_file_and_what(embedded, load, tmp_path):
    path = tmp_path / "s"
    state = embedded.new_state()
    state.save(path)
    other, _ = load("7")
    error = caught(StateError, lambda: other.load_state(path))
    assert (error.path, error.name) == (str(path), "fingerprint") and error.got != error.wanted
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert caught(StateError, lambda: embedded.load_state(path)).name == "checksum"
    path.write_bytes(b"nothing")
    assert caught(StateError, lambda: embedded.load_state(path)).path == str(path)


@pytest.mark.parametrize(
    ("call", "name", "got"),
    [
        (lambda m: rwkv_engine.load(threads=0), "threads", 0),
        (lambda m: rwkv_engine.load(weights="int3"), "weights", "int3"),
        (lambda m: rwkv_engine.load(weights=""), "weights", ""),
        (lambda m: rwkv_engine.load(ram="much"), "ram", "much"),
        (lambda m: rwkv_engine.Sampling(temperature=-1), "temperature", -1),
        (lambda m: rwkv_engine.Sampling(top_k=-1), "top_k", -1),
        (lambda m: rwkv_engine.Sampling.preset("no"), "preset", "no"),
        (lambda m: rwkv_engine.blend(m.new_state(), m.new_state(), 2), "weight", 2),
        (lambda m: m.generate("x", max_tokens=0), "max_tokens", 0),
        (lambda m: m.generate("x", stop=3), "stop", 3),
    ],
)
def test_an_option_that_makes_no_sense_says_which_and_what_it_was(embedded, call, name, got):
    error = caught(OptionError, lambda: list(call(embedded)))
    assert (error.name, error.got) == (name, got) and error.wanted and isinstance(error, ValueError)
