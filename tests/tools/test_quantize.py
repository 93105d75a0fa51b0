"""Packed files: the same model, whole or not at all, and damaged ones refused."""

import json
import math
import re

import models
import numpy as np
import pytest
import reference
from safetensors.numpy import load_file, save_file

import rwkv_engine
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.errors import CheckpointError, OptionError
from rwkv_engine.families.loader import Loader, transposed
from rwkv_engine.formats import FORMATS
from rwkv_engine.numbers import int8_layout
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.folders import cache_folder
from rwkv_engine.tools.quantize import cached, packed_bytes

TOKENS = [1, 2, 3, 5, 8, 13, 21, 34, 55]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def logits(model):
    return model.feed(TOKENS, model.new_state(), every=True)


@pytest.fixture
def packed(checkpoints, tokenizer_file, tmp_path):
    """A packed RWKV-7."""
    target = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(checkpoints("7", "BF16", vocab=64)[0], target, tokenizer=tokenizer_file)
    return target


@pytest.fixture
def plain(checkpoints, tokenizer_file, tmp_path):
    """A packed RWKV-7 whose other tensors are float32, as which NumPy knows them."""
    target = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(checkpoints("7")[0], target, tokenizer=tokenizer_file)
    return target


@pytest.mark.slow_but("7")
@pytest.mark.parametrize("version", reference.VERSIONS)
def test_a_packed_file_is_the_model_quantized_on_loading(checkpoints, tokenizer_file, tmp_path, version):
    source = checkpoints(version, "BF16")[0]
    target = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(source, target, tokenizer=tokenizer_file)
    loaded = rwkv_engine.load(target, threads=1)
    at_once = rwkv_engine.load(source, "int8", threads=1, tokenizer=tokenizer_file, cache=False)
    np.testing.assert_array_equal(logits(loaded), logits(at_once))
    assert loaded.format == "int8" and loaded.checkpoint.container == "packed"
    assert (
        loaded.fingerprint
        == at_once.fingerprint
        == rwkv_engine.load(source, threads=1, tokenizer=tokenizer_file).fingerprint
    )
    assert loaded.tokenizer.encode("012") == at_once.tokenizer.encode("012")


def test_a_packed_file_is_read_where_it_is_mapped(packed):
    checkpoint = open_checkpoint(packed)
    for tensor in checkpoint.tensors.values():
        array = tensor.bits()
        assert not array.flags.owndata and not array.flags.writeable, tensor.name
    aligned = [t.bits().ctypes.data % 64 for t in checkpoint.tensors.values() if t.dtype == "INT8"]
    assert aligned and not any(aligned)
    turned = checkpoint.tensors["blocks.0.att.w1"].bits()
    assert turned.T.flags.c_contiguous and not turned.flags.c_contiguous


def test_the_head_of_a_small_vocabulary_keeps_its_precision_and_a_large_one_does_not(tmp_path):
    for vocab, dtype in ((256, "F32"), (65536, "INT8")):
        path = models.write(tmp_path / "m.safetensors", models.random_model("7", vocab=vocab, layers=1))
        rwkv_engine.quantize(path, tmp_path / "q.safetensors")
        tensors = open_checkpoint(tmp_path / "q.safetensors").tensors
        assert tensors["head.weight"].dtype == dtype and tensors["blocks.0.ffn.key.weight"].dtype == "INT8"
        assert tensors["emb.weight"].dtype == "F32"


def test_a_state_fits_the_packed_model_and_its_source(packed, checkpoints, tokenizer_file, tmp_path):
    source = rwkv_engine.load(checkpoints("7", "BF16", vocab=64)[0], tokenizer=tokenizer_file)
    state = source.new_state()
    source.feed(TOKENS, state)
    state.save(tmp_path / "s")
    assert rwkv_engine.load(packed).load_state(tmp_path / "s").position == len(TOKENS)


def test_progress_adds_up_to_the_bytes_foretold(checkpoints, tokenizer_file, tmp_path):
    source, seen = checkpoints("6")[0], []
    rwkv_engine.quantize(source, tmp_path / "q", tokenizer=tokenizer_file, progress=seen.append)
    assert sum(seen) == packed_bytes(open_checkpoint(source)) > 0
    assert sum(seen) < (tmp_path / "q").stat().st_size < sum(seen) + 40_000


def test_layout_packs_and_unpacks_every_shape():
    rng = np.random.default_rng(0)
    for rows, cols in ((1, 1), (16, 64), (17, 65), (1030, 96)):
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        packed = int8_layout.packed(rows, cols, lambda first, last, v=values: v[first:last])
        assert packed.shape == int8_layout.shape_of(rows, cols)
        again = int8_layout.unpacked(packed, rows, cols)
        assert np.abs(again - values).max() <= np.abs(values).max() / 127 / 2 * 1.01


# the cache


def test_int8_is_kept_in_the_cache_and_taken_from_there(checkpoints, tokenizer_file):
    source = checkpoints("7")[0]
    first = rwkv_engine.load(source, "int8", tokenizer=tokenizer_file)
    (file,) = cache_folder().glob("*.safetensors")
    before = file.stat().st_mtime_ns
    second = rwkv_engine.load(source, "int8", tokenizer=tokenizer_file)
    np.testing.assert_array_equal(logits(first), logits(second))
    assert file.stat().st_mtime_ns == before and second.checkpoint.path == source


def test_without_cache_nothing_is_written(checkpoints, tokenizer_file):
    rwkv_engine.load(checkpoints("7")[0], "int8", tokenizer=tokenizer_file, cache=False)
    assert not cache_folder().exists()


def test_a_damaged_or_foreign_cache_is_made_anew(checkpoints, tokenizer_file):
    source = checkpoints("7")[0]
    want = logits(rwkv_engine.load(source, "int8", tokenizer=tokenizer_file))
    (file,) = cache_folder().glob("*.safetensors")
    foreign = cache_folder().parent / "foreign"
    rwkv_engine.quantize(checkpoints("7", seed=5)[0], foreign, tokenizer=tokenizer_file)
    for damage in (file.read_bytes()[:-1], b"", b"no model at all", foreign.read_bytes()):
        file.write_bytes(damage)
        np.testing.assert_array_equal(
            logits(rwkv_engine.load(source, "int8", tokenizer=tokenizer_file)), want
        )


def test_where_no_cache_can_be_written_the_model_runs_all_the_same(
    checkpoints, tokenizer_file, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    model = rwkv_engine.load(checkpoints("7")[0], "int8", tokenizer=tokenizer_file)
    assert np.isfinite(logits(model)).all()


def test_two_tunings_of_one_model_share_a_cache_and_keep_their_states(checkpoints, tmp_path):
    _, tensors = checkpoints("7")
    for seed in (1, 2):
        tuned = np.random.default_rng(seed).standard_normal((2, 2, 8, 8)).astype(np.float32)
        path = models.write(
            tmp_path / f"{seed}", tensors | {f"blocks.{i}.att.time_state": tuned[i] for i in range(2)}
        )
        state = cached(open_checkpoint(path), "int8").tensors["blocks.1.att.time_state"].float32()
        np.testing.assert_array_equal(state, tuned[1])
    assert len(list(cache_folder().glob("*.safetensors"))) == 1


# refusals


def test_what_cannot_be_quantized_is_refused(packed, checkpoints, tokenizer_file, tmp_path):
    source = checkpoints("7")[0]
    for arguments, sentence in (
        ((source, tmp_path / "q", "int3"), "format"),
        ((packed, tmp_path / "q"), "already packed"),
        ((source, source), "same file"),
        ((source, tmp_path / "no" / "q"), "no folder"),
    ):
        with pytest.raises(OptionError, match=sentence):
            rwkv_engine.quantize(*arguments, tokenizer=tokenizer_file)
    assert [p.name for p in tmp_path.iterdir()] == ["packed.safetensors"]


KEY = "blocks.0.att.key.weight"
#: RWKV-7's small matrices -> RWKV-6's
V6_NAMES = {
    "blocks.1.att.w1": "blocks.1.att.time_decay_w1",
    "blocks.1.att.w2": "blocks.1.att.time_decay_w2",
    "blocks.1.att.r_k": "blocks.1.att.time_faaaa",
}


def notes_of(packed):
    """What a packed file says of itself."""
    header = packed.read_bytes()
    length = int.from_bytes(header[:8], "little")
    return json.loads(json.loads(header[8 : 8 + length])["__metadata__"]["rwkv_engine"])


def notes_changed(packed, **changes):
    """The packed file with other notes."""
    save_file(load_file(packed), packed, {"rwkv_engine": json.dumps(notes_of(packed) | changes)})


@pytest.mark.parametrize(
    "changes",
    [
        *({"version": version} for version in (4, 0, -1, "1", "²", 1.5, True, math.nan, None, [2])),
        *({"fingerprint": name} for name in (3, None, "²" * 64, "../" * 20 + "etc", "A" * 64)),
        *({"tokenizer": name} for name in ("/etc/passwd", 3, ["world"], {})),
        *({"template": name} for name in (3, None, "\ud800")),
        *({"formats": given} for given in (None, [], {}, "int8", {"int8": []}, {"int8": None}, {"int3": {}})),
        *({"formats": {"int8": {KEY: shape}}} for shape in ([16, 1 << 50], [160, 16], "16 x 16", [16, 16.0])),
        *({"formats": {"int8": {KEY: shape}}} for shape in ([16], [True, 16], [math.nan, 16], [-16, -16])),
        {"formats": {"bf16": {KEY: [16, 16]}}},
        {"formats": {"int8": {"nothing": [16, 16]}}},
        *({"turned": given} for given in ({}, None, [3], [["x"]], "x", ["nothing"])),
        *({"turned": [name]} for name in ("blocks.0.ln1.weight", KEY)),
    ],
    ids=str,
)
def test_notes_that_lie_are_refused_in_one_sentence(plain, changes):
    notes_changed(plain)
    assert np.isfinite(logits(rwkv_engine.load(plain))).all()
    notes_changed(plain, **changes)
    with pytest.raises(CheckpointError) as caught:
        rwkv_engine.load(plain)
    sentence = str(caught.value)
    assert "\n" not in sentence and str(plain) in sentence and len(sentence) < 500 + len(str(plain))


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize(
    "name", ["emb.weight", "blocks.1.ln2.weight", "blocks.1.att.w1", "blocks.1.att.w2", "blocks.1.att.r_k"]
)
def test_notes_that_pack_what_is_no_matrix_are_refused_before_anything_runs(
    checkpoints, tokenizer_file, tmp_path, version, name
):
    """A row of a low-rank half that is turned, or a row of the embedding, would be looked for behind the end
    of the file.
    """
    name = name if version == "7" else V6_NAMES.get(name, name)
    packed = tmp_path / "packed.safetensors"
    source, tensors = checkpoints(version)
    rwkv_engine.quantize(source, packed, tokenizer=tokenizer_file)
    notes, shape = notes_of(packed), (1, *tensors[name].shape)[-2:]
    notes["formats"]["int8"][name] = shape
    notes["turned"] = [one for one in notes["turned"] if one != name]
    stored = np.zeros(int8_layout.shape_of(*shape), np.uint8)
    save_file(load_file(packed) | {name: stored}, packed, {"rwkv_engine": json.dumps(notes)})
    with pytest.raises(CheckpointError, match=re.escape(name)) as caught:
        rwkv_engine.load(packed)
    assert str(packed) in str(caught.value)
    tensor = Tensor(name, shape, "INT8", lambda: stored, FORMATS["int8"])
    loader = Loader({name: tensor}, 1, None)  # whatever reader it came from
    for read in (lambda: loader.vector(name, 1), lambda: loader.small([tensor]), lambda: transposed(tensor)):
        with pytest.raises(CheckpointError, match=re.escape(name)):
            read()


def test_a_layer_s_number_is_written_in_plain_digits(plain):
    tensors, notes = load_file(plain), notes_of(plain)
    tensors["blocks.².ln1.weight"] = tensors["blocks.0.ln1.weight"]
    save_file(tensors, plain, {"rwkv_engine": json.dumps(notes)})
    with pytest.raises(CheckpointError, match=r"blocks\.².ln1\.weight' has no place"):
        rwkv_engine.load(plain)


def test_notes_that_are_no_json_are_refused(plain):
    for notes in ("", "[", "[]", "{}", "null", "[" * 100_000, '{"version": 1' + 5000 * "0" + "}"):
        save_file(load_file(plain), plain, {"rwkv_engine": notes})
        with pytest.raises(CheckpointError, match="damaged"):
            rwkv_engine.load(plain)


@pytest.mark.parametrize("name", ["blocks.1.ffn.key.weight", "blocks.1.ffn.value.weight"])
def test_a_scale_that_is_nan_is_found(packed, name):
    data = bytearray(packed.read_bytes())
    start = int.from_bytes(data[:8], "little") + 8
    entry = json.loads(data[8:start])[name]
    begin, end = entry["data_offsets"]
    # a line of scales behind 16 lines of integers; or behind 32 units, the rows' scales
    first, size = (1024, 1088) if "key" in name else (entry["shape"][1] * 32 // 34, entry["shape"][1])
    for at in range(start + begin + first, start + end, size):
        data[at : at + 2] = b"\xc0\x7f"
    packed.write_bytes(data)
    with pytest.raises(CheckpointError, match=name):
        logits(rwkv_engine.load(packed))
