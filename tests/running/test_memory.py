"""Memory: what is told before loading is what is used, and a bound is kept."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rwkv_engine
from rwkv_engine import CheckpointError, OptionError
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.mapping import map_file
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.lanes import barrier
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.numbers.sizes import bytes_of, mb
from rwkv_engine.running import embedding, memory
from rwkv_engine.running.team import Team
from rwkv_engine.system import pages
from rwkv_engine.system.pages import mapped_file

#: loads, reads a prompt, writes some tokens; then tells the likeliest tokens and the peak
CHILD = """
import json, sys
import rwkv_engine
from rwkv_engine.system import pages
path, weights, ram, tokenizer = sys.argv[1:]
model = rwkv_engine.load(path, weights, ram=ram or None, tokenizer=tokenizer)
state = model.new_state()
model.feed([1 + n % 60 for n in range(100)], state)
print(json.dumps({"token": [int(model.feed([n], state).argmax()) for n in range(8)], "peak": pages.peak()}))
"""
needs_linux = pytest.mark.skipif(
    not pages.HERE, reason="Linux alone tells a process's peak and gives pages back"
)


@pytest.fixture(scope="module")
def big(checkpoints, tokenizer_file):
    """A model of 50 million parameters in BF16: enough to be seen beside what Python takes."""
    path, _ = checkpoints("7", "BF16", layers=16, heads=8, head_size=64)
    return path, tokenizer_file


@pytest.fixture(scope="module")
def run(big, tmp_path_factory):
    """run(weights, ram) -> what CHILD prints, when all is compiled and packed."""
    path, tokenizer = big
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}

    def once(weights, ram):
        command = [sys.executable, "-c", CHILD, path, weights, ram, tokenizer]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    prepare = functools.cache(lambda weights: once(weights, ""))

    def measured(weights, ram=""):
        prepare(weights)
        return once(weights, ram)

    return measured


@pytest.mark.slow_but("f32")
@needs_linux
@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_the_peak_is_the_estimate(big, run, weights):
    want = memory.estimate(open_checkpoint(big[0]), weights).peak
    assert run(weights)["peak"] == pytest.approx(want, rel=0.05)


@needs_linux
def test_a_bound_is_kept_and_changes_nothing_else(big, run):
    found = memory.estimate(open_checkpoint(big[0]))
    ram = found.least + 5_000_000
    assert ram < found.total - 20_000_000
    free, bound = run("bf16"), run("bf16", str(ram))
    assert bound["token"] == free["token"]
    assert bound["peak"] <= ram < free["peak"]


@pytest.fixture
def wide(checkpoints):
    """A small model with an embedding of 34 MB."""
    return checkpoints("7", "BF16", heads=4, head_size=64, vocab=65536)[0]


@needs_linux
def test_an_embedding_does_not_come_into_memory_bit_by_bit(wide):
    first = rwkv_engine.load(wide, tokenizer="bytes", threads=1)
    first.skim([1] * CHUNK, first.new_state())  # compiles
    model = rwkv_engine.load(wide, tokenizer="bytes", threads=1)
    state, every = model.new_state(), np.random.default_rng(0).permutation(model.config.vocab)[:8192]
    assert model._machinery.owners[0].nbytes > 32_000_000
    before = pages.resident()
    for start in range(0, len(every), CHUNK):
        model.skim(every[start : start + CHUNK], state)
    assert pages.resident() - before < 16_000_000


def test_rows_read_from_the_file_are_those_that_are_mapped(wide, monkeypatch):
    tokens = np.random.default_rng(1).integers(0, 65536, 100)
    read = rwkv_engine.load(wide, tokenizer="bytes")
    monkeypatch.setattr(embedding, "WORTH_READING", 1 << 40)
    mapped = rwkv_engine.load(wide, tokenizer="bytes")
    assert read._machinery._tables and not mapped._machinery._tables
    logits = [model.feed(tokens, model.new_state(), every=True) for model in (read, mapped)]
    np.testing.assert_array_equal(*logits)
    pairs = [([int(t)], read.new_state()) for t in tokens[:9]]
    alone = [mapped.feed([int(t)], mapped.new_state()) for t in tokens[:9]]
    np.testing.assert_allclose(read.feed_batch(pairs), alone, atol=1e-4)


@needs_linux
def test_a_file_that_was_cut_off_while_in_use_is_named(wide, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(Path(wide).read_bytes())
    file = mapped_file(map_file(path))
    rows = embedding.Rows(np.frombuffer(file, np.uint16)[-6400:].reshape(100, 64), file, path)
    assert rows.read(np.array([99, 0, 99])).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(rows.near[0], np.frombuffer(file, np.uint16)[-64:])
    np.testing.assert_array_equal(rows.near[2], rows.near[0])
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has been cut off"):
        rows.read(np.array([99]))


def test_what_cannot_fit_is_refused_with_the_sum(big):
    found = memory.estimate(open_checkpoint(big[0]))
    with pytest.raises(
        OptionError, match=rf"97 MB engine .* = {mb(found.total)}.*at least {mb(found.least)}"
    ):
        rwkv_engine.load(big[0], ram=found.least - 1, tokenizer=big[1])
    with pytest.raises(OptionError, match="--weights int8 takes less"):
        rwkv_engine.load(ram="100M")


def test_a_model_that_fits_keeps_all_its_weights():
    assert rwkv_engine.load(ram="2G")._machinery.team._leave is None


def test_first_the_embedding_is_given_up_then_the_head_then_layers(big):
    found = memory.estimate(open_checkpoint(big[0]))
    model = rwkv_engine.load(big[0], tokenizer=big[1])
    owners = model._machinery.owners
    sizes = [found.total - 1, found.total - 20_000_000, found.least]
    counts = [len(memory.left_to_the_page_cache(owners, found, ram)) for ram in sizes]
    assert 2 < counts[0] < counts[1] < counts[2] <= len(owners)
    first = memory.left_to_the_page_cache(owners, found, sizes[0])
    assert first[0] is owners[0] and first[1] is owners[1]
    assert first[0].shape == first[1].shape == (model.config.vocab, model.config.width)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("900M", 900_000_000),
        ("1.5G", 1_500_000_000),
        ("2GiB", 2**31),
        ("700 mb", 700_000_000),
        (12345, 12345),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1M", "0", "9T", "I", "1e9", None, True])
def test_other_sizes_are_refused(text):
    with pytest.raises(OptionError, match="want a size such as"):
        bytes_of(text)


@needs_linux
def test_pages_of_a_file_are_given_back_and_read_again(tmp_path):
    (tmp_path / "f").write_bytes(bytes(range(256)) * 200_000)
    array = map_file(tmp_path / "f")
    total = int(array.sum(dtype="u8"))
    before = pages.resident()
    pages.give_back(array)
    assert pages.resident() < before - 40_000_000
    assert int(array.sum(dtype="u8")) == total
    assert pages.is_mapped(array[5:]) and not pages.is_mapped(array.copy())


COMPILER = """
import re, sys
from pathlib import Path
from llvmlite.utils import get_library_name
from rwkv_engine.system import pages
from rwkv_engine.kernels import _jit

def held():
    "Bytes of the compiler's code that are in memory."
    found = re.findall(rf"r-xp .*/{get_library_name()}\\nSize: .*\\n.*\\n.*\\nRss: +(\\d+) kB", Path("/proc/self/smaps").read_text())
    return 1024 * sum(map(int, found))

@_jit.program
def twice(x):
    return x + x

_jit.standalone(twice.py_func)(1.5)
before = held()
print(twice(2), before, held(), twice(2.5))
"""


@needs_linux
def test_the_compiler_s_code_does_not_stay_in_memory_and_works_again(tmp_path):
    (tmp_path / "script.py").write_text(COMPILER)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for _ in range(2):  # compiled, then from the disk
        command = [sys.executable, str(tmp_path / "script.py")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        whole, before, after, fraction = done.stdout.split()
        assert (whole, fraction) == ("4", "5.0") and int(before) > 5_000_000 > int(after)


def test_ranges_are_whole_pages_and_neighbours_are_joined(tmp_path):
    page = pages._PAGE
    (tmp_path / "f").write_bytes(bytes(20 * page))
    array = map_file(tmp_path / "f")
    start = array.ctypes.data
    parts = [
        array[5 * page : 7 * page + 5],
        array[100 : 2 * page],
        array[7 * page + 5 : 9 * page],
        array[10 * page + 1 : 11 * page],
    ]
    assert pages.ranges(parts).tolist() == [[start + page, page], [start + 5 * page, 4 * page]]
    assert pages.ranges(parts, gap=page + 1).tolist() == [[start + page, page], [start + 5 * page, 6 * page]]
    assert pages.ranges([]).shape == (0, 2)


@standalone
def read_through(lane, data, totals):
    """Each lane adds up a byte of every 512, then all meet."""
    for i in range(0, data.shape[0], 512):
        totals[lane.number] += data[i]
    barrier(lane)


@needs_linux
@pytest.mark.parametrize("lanes", [1, 2])
def test_after_a_stage_the_pages_that_are_left_are_given_back(tmp_path, lanes):
    (tmp_path / "f").write_bytes(bytes([7]) * 40_000_000)
    data = map_file(tmp_path / "f")
    read_through(Team(1)._lane(0, 1), data[:1], np.zeros(1, np.int64))  # compiled
    for leave, held in ((None, True), (pages.ranges([data]), False)):
        before, totals = pages.resident(), np.zeros(lanes, np.int64)
        Team(lanes, leave=leave).run(read_through, data, totals)
        assert totals.tolist() == [7 * len(range(0, 40_000_000, 512))] * lanes
        assert (pages.resident() > before + 30_000_000) == held
        pages.give_back(data)


@needs_linux
def test_weights_are_mapped_in_large_pages_where_the_system_has_them_and_the_embedding_is_not(big):
    path, tokenizer = big
    model = rwkv_engine.load(path, tokenizer=tokenizer, threads=1)
    embedding, matrix = (
        model.checkpoint.tensors[name].bits() for name in ("emb.weight", "blocks.8.ffn.key.weight")
    )
    assert pages.is_mapped(matrix)
    assert "hg" not in flags_at(embedding.ctypes.data + embedding.nbytes // 2)
    if Path("/sys/kernel/mm/transparent_hugepage").exists():
        assert "hg" in flags_at(matrix.ctypes.data + matrix.nbytes // 2)


def flags_at(address):
    """What Linux notes about the mapping that an address is in."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        span = re.match("([0-9a-f]+)-([0-9a-f]+) ", line)
        if span:
            inside = int(span[1], 16) <= address < int(span[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("no mapping has this address")
