"""The model: what it refuses, many threads, long texts, what it costs."""

import gc
import os
import subprocess
import sys
import threading

import models
import numpy as np
import pytest

import rwkv_engine
from rwkv_engine import (
    CheckpointError,
    MissingTensor,
    OptionError,
    StateError,
    TokenError,
    UnknownLayout,
    WrongShape,
)
from rwkv_engine.numbers.shapes import CHUNK


@pytest.fixture(scope="module")
def small(load):
    return load("7")[0]


@pytest.mark.parametrize("tokens", [[], [64], [-1], [3, 999], [[1, 2]], [1.5], ["a"]])
def test_tokens_that_are_none_are_refused_and_the_state_stays(small, tokens):
    state = small.new_state()
    small.feed([1, 2], state)
    before = state.fork()
    with pytest.raises(TokenError):
        small.feed(tokens, state)
    with pytest.raises(TokenError):
        small.feed_batch([([1], small.new_state()), (tokens, state)])
    assert state == before


def test_a_token_out_of_range_is_named_with_its_position(small):
    with pytest.raises(TokenError, match="token 77 at position 2 .* 0 to 63"):
        small.feed([0, 1, 77], small.new_state())


def test_a_state_of_another_model_is_refused(small, load, tmp_path):
    other = load("7", seed=9)[0]
    for wrong in (other.new_state(), None, "state"):
        with pytest.raises(StateError, match="another model"):
            small.feed([1], wrong)
    other.new_state().save(tmp_path / "s")
    with pytest.raises(StateError, match="another model"):
        small.load_state(tmp_path / "s")
    state = small.new_state()
    with pytest.raises(StateError, match="twice"):
        small.feed_batch([([1], state), ([2], state)])


@pytest.mark.parametrize("version", ["4", "5.2", "6", "7"])
def test_a_missing_tensor_is_named(tmp_path, tokenizer_file, version):
    tensors = models.random_model(version)
    for name in ("blocks.1.att.key.weight", "blocks.0.ln0.weight", "head.weight", "blocks.1.ln2.bias"):
        path = models.write(tmp_path / "m.safetensors", {k: v for k, v in tensors.items() if k != name})
        with pytest.raises(MissingTensor, match=name.replace(".", r"\.")) as refused:
            rwkv_engine.load(path, tokenizer=tokenizer_file)
        assert str(path) in str(refused.value)


@pytest.mark.parametrize("version", ["4", "5.0", "5.1", "5.2", "6", "7"])
def test_any_tensor_of_a_wrong_shape_is_an_error_and_no_crash(tmp_path, tokenizer_file, version):
    tensors = models.random_model(version, layers=2)
    for name, array in tensors.items():
        for wrong in (
            array.reshape(-1)[: array.size // 2],
            np.zeros((3, 5), np.float32),
            np.zeros((0,), np.float32),
        ):
            path = models.write(tmp_path / "m.safetensors", tensors | {name: wrong})
            with pytest.raises(CheckpointError) as refused:
                rwkv_engine.load(path, tokenizer=tokenizer_file)
            assert "\n" not in str(refused.value)


def test_a_wrong_shape_says_what_it_got_and_what_it_wants(tmp_path, tokenizer_file):
    path = models.write(
        tmp_path / "m.safetensors",
        models.random_model("7") | {"blocks.1.att.key.weight": np.zeros((16, 8), np.float32)},
    )
    with pytest.raises(WrongShape, match=r"blocks.1.att.key.weight: got shape \[16, 8\], want \[16, 16\]"):
        rwkv_engine.load(path, tokenizer=tokenizer_file)


def test_a_rank_that_differs_from_layer_to_layer_is_refused(tmp_path, tokenizer_file):
    tensors, name = models.random_model("6"), "blocks.1.att.time_maa_w2"
    five, rank, width = tensors[name].shape
    tensors[name] = np.zeros((five, rank + 1, width), np.float32)
    with pytest.raises(WrongShape, match=r"blocks\.1\.att\.time_maa_w2"):
        rwkv_engine.load(models.write(tmp_path / "m.safetensors", tensors), tokenizer=tokenizer_file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named_when_logits_stop_being_finite(tmp_path, tokenizer_file, value):
    tensors = models.random_model("7")
    tensors["blocks.1.ffn.value.weight"][3, 4] = value
    model = rwkv_engine.load(models.write(tmp_path / "m.safetensors", tensors), tokenizer=tokenizer_file)
    with pytest.raises(CheckpointError, match=r"blocks\.1\.ffn\.value\.weight"):
        model.feed([1, 2, 3], model.new_state())


@pytest.mark.parametrize("options", [{"weights": "int3"}, {"threads": 0}, {"tokenizer": "klingon"}])
def test_options_that_cannot_be_meant_are_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        rwkv_engine.load(**options)


def test_rwkv_7b_is_refused_by_name(tmp_path):
    tensors = models.random_model("7") | {"blocks.0.qkv.weight": np.zeros((8, 8), np.float32)}
    with pytest.raises(UnknownLayout, match="7b"):
        rwkv_engine.load(models.write(tmp_path / "m.safetensors", tensors))


def test_one_model_serves_many_threads_each_with_its_own_state(load):
    model = load("7", threads=2)[0]
    texts = [np.random.default_rng(i).integers(0, 64, 40) for i in range(6)]
    alone = []
    for text in texts:
        state = model.new_state()
        alone.append([model.feed(part, state) for part in np.split(text, [5, 6, 30])])
    results = {}

    def feed(i):
        state = model.new_state()
        results[i] = [model.feed(part, state) for part in np.split(texts[i], [5, 6, 30])]

    threads = [threading.Thread(target=feed, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, logits in enumerate(alone):
        np.testing.assert_array_equal(results[i], logits)


def test_generation_is_reproduced_by_its_seed_and_continues_a_saved_state(embedded, tmp_path):
    def text(**options):
        sampling = rwkv_engine.Sampling(temperature=0.8, top_p=0.9, seed=1)
        return "".join(
            step.text
            for step in embedded.generate("Once upon a time", max_tokens=30, sampling=sampling, **options)
        )

    assert text() == text()
    state = embedded.new_state()
    first = text(state=state)
    state.save(tmp_path / "s.safetensors")
    assert embedded.load_state(tmp_path / "s.safetensors") == state
    assert state.position == len(embedded.tokenizer.encode("Once upon a time" + first))


def test_a_long_text_leaves_memory_and_state_as_they_were(embedded):
    psutil = pytest.importorskip("psutil")
    state = embedded.new_state()
    tokens = np.random.default_rng(0).integers(1, embedded.config.vocab, 2000)
    embedded.feed(tokens, state)
    gc.collect()
    process, size = psutil.Process(), state.nbytes
    before = process.memory_info().rss
    for _ in range(10):
        logits = embedded.feed(tokens, state)
    gc.collect()
    assert process.memory_info().rss - before < 1_000_000
    assert state.nbytes == size and state.position == 22_000 and np.isfinite(logits).all()


def test_importing_the_package_is_free_and_every_public_name_exists():
    program = "import sys, rwkv_engine; assert 'numpy' not in sys.modules; [getattr(rwkv_engine, n) for n in rwkv_engine.__all__]"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_engine_runs_where_no_cache_can_be_written(tmp_path):
    program = "import rwkv_engine.kernels._jit as j, numba; f = j.program(lambda x: x + 1); assert f(1) == 2"
    env = os.environ | {
        "NUMBA_CACHE_DIR": "/dev/null/none",
        "HOME": "/dev/null",
        "XDG_CACHE_HOME": "/dev/null",
    }
    subprocess.run([sys.executable, "-c", program], check=True, env=env, timeout=60, cwd=tmp_path)


@pytest.mark.parametrize("length", [1, 3, CHUNK, CHUNK + 1, 150])
def test_hidden_vectors_are_what_the_head_reads(embedded, length):
    tokens = [7 + i % 500 for i in range(length)]
    head = embedded.checkpoint.tensors["head.weight"].float32()
    one, two = embedded.new_state(), embedded.new_state()
    plain = embedded.feed(tokens, one, every=True)
    logits, hidden = embedded.feed_hidden(tokens, two, every=True)
    assert one == two and np.array_equal(plain, logits)
    assert hidden.shape == (length, embedded.config.width)
    assert np.allclose(hidden @ head.T, logits, atol=1e-3)
    last_logits, last = embedded.feed_hidden(tokens, embedded.new_state())
    assert np.array_equal(last_logits, embedded.feed(tokens, embedded.new_state()))
    assert np.array_equal(last, hidden[-1])
    embedded.feed([1], one)
    assert np.array_equal(last, hidden[-1])  # a copy: later passes do not change it


def test_skimming_moves_the_state_as_feeding_does(embedded):
    tokens = [7 + i % 500 for i in range(CHUNK + 9)]
    one, two = embedded.new_state(), embedded.new_state()
    embedded.feed(tokens, one)
    embedded.skim(tokens, two)
    assert one == two
    for wrong in ([], [-1], [embedded.config.vocab]):
        with pytest.raises(TokenError):
            embedded.skim(wrong, two)
        with pytest.raises(TokenError):
            embedded.feed_hidden(wrong, two)
    with pytest.raises(StateError):
        embedded.skim([1], None)
    assert one == two


@pytest.mark.parametrize("version", ["4", "5.2", "6", "7"])
def test_every_family_leaves_the_hidden_vectors_where_they_are_read(load, version):
    model, tensors = load(version)
    logits, hidden = model.feed_hidden([3, 1, 4, 1, 5], model.new_state(), every=True)
    assert np.allclose(hidden @ tensors["head.weight"].T, logits, atol=1e-4)
