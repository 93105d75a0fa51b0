"""A weight format is one record: one that is defined outside the library and registered by one line does all
that the others do.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
import toy_format

import rwkv_engine
from rwkv_engine import CheckpointError, OptionError
from rwkv_engine.bench import measure, process
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.names import is_quantized
from rwkv_engine.formats import FORMATS, format_for, format_named, own_format
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.running import memory
from rwkv_engine.system.folders import cache_folder

TOKENS = np.random.default_rng(5).integers(0, 64, 75)
REGISTER = "import toy_format, rwkv_engine.formats; rwkv_engine.formats.FORMATS['toy'] = toy_format.FORMAT\n"


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """The one line that registers a format."""
    monkeypatch.setitem(FORMATS, "toy", toy_format.FORMAT)


def every(model):
    return model.feed(TOKENS, model.new_state(), every=True)


def rounded(tensors):
    """The numbers that are left of a model in the toy format."""
    left = dict(tensors)
    for name, values in tensors.items():
        tensor = Tensor(name, values.shape, "F32", lambda values=values: values)
        if is_quantized(name, tensor):
            left[name] = toy_format.to_float32(toy_format.stored(tensor), *values.shape)
    return left


def test_a_format_from_outside_runs_a_model_as_its_numbers_say(checkpoints, tokenizer_file):
    path, tensors = checkpoints("7", heads=3, head_size=24)
    model = rwkv_engine.load(path, "toy", 2, tokenizer=tokenizer_file, cache=False)
    want, _ = reference.forward("7", rounded(tensors), TOKENS)
    assert model.format == "toy"
    np.testing.assert_allclose(every(model), want, rtol=0, atol=1e-4 * np.abs(want).max())
    state = model.new_state()
    single = np.array([model.feed([token], state) for token in TOKENS])
    np.testing.assert_allclose(single, want, rtol=0, atol=1e-4 * np.abs(want).max())


def test_a_format_from_outside_is_packed_cached_and_estimated(
    checkpoints, tokenizer_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    source, _ = checkpoints("7", heads=3, head_size=24)
    target = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(source, target, "toy", tokenizer=tokenizer_file)
    packed, at_once = rwkv_engine.load(target), rwkv_engine.load(source, "toy", tokenizer=tokenizer_file)
    assert packed.format == at_once.format == "toy" and packed.checkpoint.container == "packed"
    np.testing.assert_array_equal(every(packed), every(at_once))
    assert [file.name.split("-")[1] for file in cache_folder().glob("*.safetensors")] == ["toy"]
    found, own = memory.estimates(open_checkpoint(source)), memory.estimates(open_checkpoint(target))
    assert list(found) == list(FORMATS) and list(own) == ["toy"]
    assert found["toy"].mapped + found["toy"].private == own["toy"].mapped + own["toy"].private
    assert found["toy"].total < found["bf16"].total < found["f32"].total


def test_a_format_from_outside_is_benched(checkpoints, tokenizer_file, tmp_path, monkeypatch):
    target = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(checkpoints("7")[0], target, "toy", tokenizer=tokenizer_file)
    monkeypatch.setenv("PYTHONPATH", str(Path(toy_format.__file__).parent))
    command = REGISTER + "from rwkv_engine_cli.app import main; main()"
    monkeypatch.setattr(process, "RWKV", (sys.executable, "-c", command))
    monkeypatch.setattr(process, "_LOAD", REGISTER + process._LOAD)
    report = measure(str(target), threads=1, tokens=4, prompts=(5,), trials=1)
    assert report.model["format"] == "toy" and report.decode > 0 and report.first_token > 0


def test_a_format_names_what_it_is_not_for(checkpoints, tokenizer_file, tmp_path):
    target = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(checkpoints("7")[0], target, "toy", tokenizer=tokenizer_file)
    for weights in ("bf16", "int8"):
        with pytest.raises(OptionError, match=f"got '{weights}', but the model is packed in toy"):
            rwkv_engine.load(target, weights)
        with pytest.raises(OptionError, match="packed in toy"):
            memory.estimate(open_checkpoint(target), weights)
    with pytest.raises(OptionError, match="got 'int3', want one of f32, bf16, f16, int8, int5, int4, toy"):
        rwkv_engine.load(target, "int3")


def test_a_file_whose_format_is_not_registered_is_refused(checkpoints, tokenizer_file, tmp_path, monkeypatch):
    target = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(checkpoints("7")[0], target, "toy", tokenizer=tokenizer_file)
    monkeypatch.delitem(FORMATS, "toy")
    with pytest.raises(CheckpointError, match="format 'toy', which this engine does not have"):
        rwkv_engine.load(target)


def tensor(dtype, format=None):
    return Tensor("t", (16, 64), dtype, lambda: np.zeros(0), format)


def test_matrices_are_run_as_they_are_stored_or_as_float32_where_they_are_mixed():
    int8 = format_named("int8")
    for dtypes, name in (
        (["BF16"], "bf16"),
        (["F16", "F16"], "f16"),
        (["BF16", "F32"], "f32"),
        (["F16", "BF16"], "f32"),
        ([], "f32"),
    ):
        assert own_format([tensor(dtype) for dtype in dtypes]).name == name
    packed = [tensor("BF16"), tensor("INT8", int8)]
    assert own_format(packed) is format_for(packed, None) is format_for(packed, "int8") is int8
    with pytest.raises(CheckpointError, match="several formats, int8 and toy"):
        own_format([*packed, tensor("TOY", toy_format.FORMAT)])


@pytest.mark.parametrize("name", [*FORMATS, "toy"])
def test_what_a_format_stores_is_as_large_as_it_says_and_is_read_back(name):
    format, values = FORMATS[name], np.random.default_rng(1).standard_normal((17, 65)).astype(np.float32)
    rows, owners = format.pack([Tensor("t", values.shape, "F32", lambda: values)])
    assert owners[0].nbytes == format.bytes_of(17, 65) and owners[0].shape == format.shape_of(17, 65)
    np.testing.assert_allclose(
        format.unpack(rows, 0), values, atol={"int4": 0.35, "int5": 0.2}.get(name, 0.02)
    )


def test_the_options_name_every_format(rwkv):
    for verb, option in (("generate", "--weights"), ("quantize", "--format"), ("pull", "--format")):
        _, _, told = rwkv(verb, "--help").partition(option)
        wanted = [
            name for name in FORMATS if name != "toy" and (option == "--weights" or FORMATS[name].quantized)
        ]
        assert all(name in told.partition("--")[0] for name in wanted), verb


PROGRAM = """
from rwkv_engine.kernels._jit import program
@program
def first(x):
    return x[0]
"""
TYPE = """
from typing import NamedTuple
class Outside(NamedTuple):
    number: int
"""
CALL = """
from numba.core import event
from common import first
{given}
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(1)
    def on_end(self, event): pass
event.register("numba:compile", Listener())
print(first(x), "compiled" if compiled else "kept")
"""


def test_a_program_for_a_type_from_outside_is_kept_for_its_sources_and_stands_in_nobodys_way(tmp_path):
    common, place = tmp_path / "common", tmp_path / "outside"
    for folder, name, text in ((common, "common.py", PROGRAM), (place, "outside.py", TYPE)):
        folder.mkdir()
        (folder / name).write_text(text)

    def call(given, *folders):
        environment = os.environ | {
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
        }
        command = [sys.executable, "-c", CALL.format(given=given)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def inside():
        return call("x = (3,)", common)

    def outside():
        return call("from outside import Outside; x = Outside(4)", common, place)

    assert [inside(), outside()] == ["3 compiled", "4 compiled"]
    assert [inside(), outside()] == ["3 kept", "4 kept"]
    (place / "outside.py").write_text(TYPE + "# other kernels\n")
    assert [inside(), outside()] == ["3 kept", "4 compiled"]
