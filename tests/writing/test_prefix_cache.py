"""States behind the beginnings of prompts: the same numbers as reading again, whatever happens to the folder."""

import fcntl
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from rwkv_engine import OptionError, PrefixCache, Sampling
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.writing.prefix_cache import ENTRIES, _names, _places

GREEDY = Sampling(temperature=0)
RNG = np.random.default_rng(5)
LONG = RNG.integers(1, 2000, 1100).tolist()


@pytest.fixture
def cache(tmp_path):
    return PrefixCache(tmp_path / "made" / "prefixes", threshold=100)


class Counting:
    """The embedded model, counting the tokens that it reads."""

    def __init__(self, model):
        self.model, self.tokenizer, self.format, self.vocab = (
            model,
            model.tokenizer,
            model.format,
            model.vocab,
        )
        self.new_state, self.count = model.new_state, 0

    def skim(self, tokens, state):
        self.count += len(tokens)
        self.model.skim(tokens, state)

    def feed(self, tokens, state):
        self.count += len(tokens)
        return self.model.feed(tokens, state)


def run(model, tokens, cache, state=None, format=None):
    """(steps, final state, tokens of the prompt that were read) of a short text."""
    from test_generate import generate

    counting = Counting(model)
    counting.format = format or model.format
    state = model.new_state() if state is None else state
    steps = list(generate(counting, tokens, max_tokens=4, sampling=GREEDY, state=state, prefix_cache=cache))
    return steps, state, counting.count - sum(step.stop != "end" for step in steps)


def entries(cache):
    return sorted(cache.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)


def test_a_known_prompt_is_not_read_again_and_gives_the_same_numbers(embedded, cache):
    plain = run(embedded, LONG, None)
    first, second = run(embedded, LONG, cache), run(embedded, LONG, cache)
    assert (plain[2], first[2]) == (len(LONG), len(LONG))
    assert second[2] <= CHUNK
    assert plain[0] == first[0] == second[0]  # with log-probabilities
    assert plain[1] == first[1] == second[1]  # bit for bit


@pytest.mark.parametrize("shared", [1099, 1024, 700, 129, 128])
def test_what_two_prompts_begin_with_is_read_once(embedded, cache, shared):
    run(embedded, LONG, cache)
    other = LONG[:shared] + [token % 2000 + 1 for token in LONG[shared:]]
    plain, found = run(embedded, other, None), run(embedded, other, cache)
    assert found[:2] == plain[:2]
    assert len(other) - shared <= found[2] < len(other) - shared + 2 * len(LONG) / ENTRIES + CHUNK


def test_a_longer_prompt_goes_on_from_a_shorter_one(embedded, cache):
    run(embedded, LONG[:640], cache)
    plain, found = run(embedded, LONG, None), run(embedded, LONG, cache)
    assert found[:2] == plain[:2] and found[2] == len(LONG) - 576


@pytest.mark.parametrize("length", [100, 128, 129])
def test_prompts_around_a_chunks_end_always_leave_something_to_feed(embedded, cache, length):
    plain = run(embedded, LONG[:length], None)
    for _ in range(2):
        assert run(embedded, LONG[:length], cache)[:2] == plain[:2]


def test_short_prompts_are_neither_kept_nor_looked_up(embedded, cache):
    run(embedded, LONG[:99], cache)
    assert not cache.folder.exists() and cache.nbytes == 0


def test_other_beginnings_formats_and_models_are_never_taken(embedded, cache):
    run(embedded, LONG, cache)
    assert run(embedded, LONG[1:], cache)[2] == len(LONG) - 1
    assert run(embedded, LONG, cache, format="int8")[2] == len(LONG)
    state = embedded.new_state()
    embedded.feed([7], state)
    plain_state = state.fork()
    plain, found = run(embedded, LONG, None, plain_state), run(embedded, LONG, cache, state)
    assert found[2] == len(LONG) and found[:2] == plain[:2]
    mounted = embedded.new_state()
    mounted["wkv"][0, 0, 0, 0] = 0.5  # a state that begins otherwise, as a state-tuned model's does
    assert run(embedded, LONG, cache, mounted)[2] == len(LONG)


def test_a_state_that_has_seen_tokens_is_a_beginning_of_its_own(embedded, cache):
    state = embedded.new_state()
    embedded.feed([7], state)
    runs = [run(embedded, LONG, cache, state.fork()) for _ in range(2)]
    assert runs[0][:2] == runs[1][:2] and runs[1][2] <= CHUNK


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "another"])
def test_a_damaged_entry_is_deleted_and_read_again(embedded, cache, damage):
    plain = run(embedded, LONG, cache)
    for path in entries(cache):
        content = path.read_bytes()
        wrong = {
            "cut": content[:-100],
            "flipped": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
            "empty": b"",
            "text": b"no state",
            "another": entries(cache)[0].read_bytes() if path != entries(cache)[0] else b"",
        }[damage]
        path.write_bytes(wrong)
    again = run(embedded, LONG, cache)
    assert again[:2] == plain[:2] and again[2] == len(LONG)
    assert run(embedded, LONG, cache)[2] <= CHUNK  # the entries are whole again


def test_the_bound_holds_and_what_was_used_last_stays(embedded, tmp_path):
    size = embedded.new_state().nbytes
    cache = PrefixCache(tmp_path, max_bytes=5 * (size + 1000), threshold=100)
    prompts = [RNG.integers(1, 2000, 150).tolist() for _ in range(3)]  # two entries each
    for prompt in prompts[:2]:
        run(embedded, prompt, cache)
    assert run(embedded, prompts[0], cache)[2] <= CHUNK
    run(embedded, prompts[2], cache)
    assert cache.nbytes <= cache.max_bytes
    assert [run(embedded, prompt, cache)[2] <= CHUNK for prompt in (prompts[0], prompts[2])] == [True, True]
    assert run(embedded, prompts[1], PrefixCache(tmp_path, threshold=100))[2] > 0
    cache.clear()
    assert cache.nbytes == 0 and not entries(cache)
    tiny = PrefixCache(tmp_path, max_bytes=1000, threshold=100)
    run(embedded, LONG, tiny)
    assert not entries(tiny)


def test_entries_of_one_prompt_are_few_and_those_of_a_longer_one_are_among_them():
    for last in (CHUNK, 640, 1408, 6400, 49984, 999936):
        places = _places(last)
        assert 1 <= len(places) <= ENTRIES + 1 and places[-1] == last
        assert all(place % CHUNK == 0 and 0 < place <= last for place in places)
        assert set(_places(2 * last)[:-1]) <= {*places, *range(last, 2 * last + 1)}


def test_a_name_covers_all_tokens_before_it(embedded):
    state = embedded.new_state()
    one = _names(np.array(LONG[:640]), state, "bf16")
    changed = LONG[:640]
    changed[300] += 1
    two = _names(np.array(changed), state, "bf16")
    assert [place for place in one if one[place] == two[place]] == [64, 128, 192, 256]
    assert len(set(one.values())) == len(one) == 10


def test_an_entry_of_other_kernels_or_another_numba_is_never_taken(embedded, monkeypatch):
    from rwkv_engine.kernels import _cache

    names = _names(np.arange(2 * CHUNK), embedded.new_state(), "bf16")
    assert _names(np.arange(2 * CHUNK), embedded.new_state(), "bf16") == names
    for change in ("numba.__version__", "COMPILED"):
        _cache.sources_stamp.cache_clear()
        with monkeypatch.context() as patch:
            if change == "COMPILED":
                patch.setattr(_cache, change, ("kernels/*.py",))  # as if sources had changed
            else:
                patch.setattr(f"{_cache.__name__}.{change}", "0.0")
            assert not set(names.values()) & set(
                _names(np.arange(2 * CHUNK), embedded.new_state(), "bf16").values()
            )
    _cache.sources_stamp.cache_clear()


def test_a_folder_that_cannot_be_written_to_is_done_without(embedded, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        cache = PrefixCache(folder, threshold=100)
        assert run(embedded, LONG[:200], cache)[0] == run(embedded, LONG[:200], None)[0]
    assert (tmp_path / "file").read_text() == "no folder"


def test_the_folder_is_for_its_owner_alone_and_unfinished_files_go(embedded, cache):
    run(embedded, LONG[:200], cache)
    if os.name == "posix":
        assert cache.folder.stat().st_mode & 0o077 == 0
    old, new = cache.folder / ".x.safetensors.01234567.part", cache.folder / ".y.safetensors.01234567.part"
    old.write_bytes(b"unfinished")
    with open(new, "wb") as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        run(embedded, LONG[200:400], cache)
        assert (old.exists(), new.exists()) == (False, True)


def test_threads_may_share_a_folder_that_is_always_too_small(embedded, tmp_path):
    cache = PrefixCache(tmp_path, max_bytes=3 * (embedded.new_state().nbytes + 1000), threshold=100)
    prompts = [LONG[:300], LONG[:170] + LONG[400:500], LONG[5:250]]
    plain = [run(embedded, prompt, None)[:2] for prompt in prompts]
    wrong = []

    def work(first):
        for number in range(12):
            which = (first + number) % len(prompts)
            if run(embedded, prompts[which], cache)[:2] != plain[which]:
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and cache.nbytes <= cache.max_bytes


def test_numbers_that_cannot_be_meant_are_refused(tmp_path):
    for wrong in ({"max_bytes": -1}, {"max_bytes": 1.5}, {"threshold": -1}, {"threshold": True}):
        with pytest.raises(OptionError):
            PrefixCache(tmp_path, **wrong)


@pytest.mark.slow
def test_the_command_keeps_long_prompts_and_only_if_it_may(tmp_path, embedded):
    (tmp_path / "long.txt").write_text(embedded.tokenizer.decode(LONG).replace("\ufffd", ""))
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    start = [
        sys.executable,
        "-m",
        "rwkv_engine_cli.app",
        "generate",
        "--file",
        str(tmp_path / "long.txt"),
        "--temperature",
        "0",
        "--json",
    ]

    def told(*more):
        done = subprocess.run(
            [*start, "--max-tokens", "3", *more], capture_output=True, text=True, timeout=200, env=env
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = tmp_path / "xdg" / "rwkv_engine" / "prefixes"
    plain = told("--no-prefix-cache")
    assert not folder.exists()
    assert told() == plain and len(list(folder.iterdir())) > 3
    assert told() == plain
