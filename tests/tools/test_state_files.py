"""State files as tools: mounting a time_state, blending, converting, and what is refused."""

import json

import checkpoint_files
import models
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwkv_engine import OptionError, StateError
from rwkv_engine import families as all_families
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.state import State, StateLayout
from rwkv_engine.tools.state_files import (
    StateFile,
    blend,
    initial_state,
    layout_of,
    open_state,
    read_state_file,
    save_state_file,
)

VERSIONS = ("5.2", "6", "7")
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tuned(seed, layers=2, heads=2, size=8):
    return {
        f"blocks.{n}.att.time_state": np.random.default_rng((seed, n))
        .standard_normal((heads, size, size))
        .astype(np.float32)
        for n in range(layers)
    }


def start_of(path):
    """The state with which a checkpoint's conversations begin, as `Model` makes it."""
    checkpoint = open_checkpoint(path)
    family = all_families.detect(checkpoint.tensors)
    config = family.infer(checkpoint.tensors)
    layout = StateLayout(family.planes(config), fingerprint(checkpoint))
    return initial_state(checkpoint, config, layout)


def written(folder, tensors, container, dtype):
    """The tensors as a state file of that kind."""
    bits = {"F32": np.float32, "F16": np.float16}
    if container == "safetensors":
        return models.write(folder / "t.safetensors", tensors, dtype)
    arrays = {
        name: models.bf16_bits(a) if dtype == "BF16" else a.astype(bits[dtype]) for name, a in tensors.items()
    }
    return checkpoint_files.write_torch(folder / "t.pth", arrays)


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    return {v: models.write(folder / f"{v}.safetensors", models.random_model(v)) for v in (*VERSIONS, "4")}


@QUICK
@given(seed=st.integers(0, 2**32), version=st.sampled_from(VERSIONS), data=st.data())
def test_a_mounted_time_state_equals_the_same_tensors_inside_the_checkpoint(
    tmp_path, model_files, seed, version, data
):
    dtype, container = (
        data.draw(st.sampled_from(("F32", "F16", "BF16"))),
        data.draw(st.sampled_from(("safetensors", "pth"))),
    )
    tensors = models.rounded(tuned(seed), dtype)
    inside = models.write(tmp_path / "inside.safetensors", models.random_model(version) | tensors)
    mounted = open_state(
        written(tmp_path, tensors, container, dtype), layout_of(open_checkpoint(model_files[version]))
    )
    assert mounted == start_of(inside)
    assert mounted["wkv"].any() and mounted.position == 0


def test_a_mounted_time_state_continues_as_one_inside_the_checkpoint(tmp_path, embedded):
    config = embedded.config
    tensors = tuned(3, config.layers, config.heads, config.head_size)
    state = embedded.load_state(models.write(tmp_path / "t.safetensors", tensors))
    by_hand = embedded.new_state()
    by_hand["wkv"][...] = np.stack(list(tensors.values())).transpose(0, 1, 3, 2)
    ids = embedded.tokenizer.encode("Once upon a time")
    got = embedded.feed(ids, state)
    assert np.array_equal(got, embedded.feed(ids, by_hand))
    assert not np.array_equal(got, embedded.feed(ids, embedded.new_state()))


@QUICK
@given(seed=st.integers(0, 2**32), version=st.sampled_from(VERSIONS))
def test_a_time_state_survives_conversion_there_and_back(tmp_path, model_files, seed, version):
    layout = layout_of(open_checkpoint(model_files[version]))
    source = models.write(tmp_path / "t.safetensors", tuned(seed))
    state = open_state(source, layout)
    save_state_file(tmp_path / "s.safetensors", StateFile("state", state))
    assert open_state(tmp_path / "s.safetensors", layout) == state
    save_state_file(
        tmp_path / "back.safetensors",
        StateFile("time_state", read_state_file(tmp_path / "s.safetensors").state),
    )
    back = safetensors.numpy.load_file(tmp_path / "back.safetensors")
    assert back.keys() == tuned(seed).keys()
    assert all(np.array_equal(back[name], array) for name, array in tuned(seed).items())


def random_state(layout, seed, position=0):
    state = State.fresh(layout)
    state.block[:] = np.random.default_rng(seed).standard_normal(layout.size)
    state.position = position
    return state


@QUICK
@given(seed=st.integers(0, 2**32), weight=st.floats(0, 1), version=st.sampled_from(VERSIONS))
def test_a_blend_lies_between_its_states_and_ends_at_them(model_files, seed, weight, version):
    layout = layout_of(open_checkpoint(model_files[version]))
    a, b = random_state(layout, seed, 3), random_state(layout, seed + 1, 9)
    middle = blend(a, b, weight)
    low, high = np.minimum(a.block, b.block), np.maximum(a.block, b.block)
    assert (middle.block >= low - 1e-6).all() and (middle.block <= high + 1e-6).all() and middle.position == 9
    assert (
        blend(a, b, 0).block.tobytes() == a.block.tobytes()
        and blend(a, b, 1).block.tobytes() == b.block.tobytes()
    )
    np.testing.assert_allclose(blend(a, b, weight).block, blend(b, a, 1 - weight).block, atol=1e-6)


def test_rwkv_4_sums_are_blended_at_one_scale(model_files):
    layout = layout_of(open_checkpoint(model_files["4"]))
    a, b = random_state(layout, 1), random_state(layout, 2)
    for state in (a, b):
        state["bb"][...] = np.abs(state["bb"])
        state["pp"][...] *= 5
    mixed = blend(a, b, 0.25)
    for name in ("aa", "bb"):
        want = 0.75 * a[name] * np.exp(a["pp"].astype(float)) + 0.25 * b[name] * np.exp(b["pp"].astype(float))
        np.testing.assert_allclose(mixed[name] * np.exp(mixed["pp"].astype(float)), want, rtol=1e-4)
    fresh = State.fresh(layout)
    assert np.isfinite(blend(a, fresh, 0.5).block).all() and blend(fresh, fresh, 0.5) == fresh


@pytest.mark.parametrize("version", (*VERSIONS, "4"))
def test_a_state_file_is_read_without_its_model(tmp_path, model_files, version):
    state = random_state(layout_of(open_checkpoint(model_files[version])), 5, 77)
    state.save(tmp_path / "s.safetensors")
    assert read_state_file(tmp_path / "s.safetensors") == StateFile("state", state)


def test_a_blend_of_two_models_or_with_an_impossible_weight_is_refused(model_files):
    a, b = (random_state(layout_of(open_checkpoint(model_files[v])), 1) for v in ("6", "7"))
    with pytest.raises(StateError, match="different models"):
        blend(a, b)
    for weight in (-0.1, 1.5, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="weight"):
            blend(a, a, weight)


REFUSED = {
    "one layer too few": (tuned(1, layers=1), "got 1 layers of time_state, want 2"),
    "one layer too many": (tuned(1, layers=3), "got 3 layers of time_state, want 2"),
    "a gap": ({k: v for k, v in tuned(1, layers=3).items() if ".1." not in k}, "none for layer 1"),
    "other heads": (tuned(1, heads=4), r"got shape \[4, 8, 8\], want \[2, 8, 8\]"),
    "other size": (tuned(1, size=4), r"got shape \[2, 4, 4\], want \[2, 8, 8\]"),
    "no square": ({k: v[:, :4] for k, v in tuned(1).items()}, r"shape \[2, 4, 8\]"),
    "not a number": ({k: v * np.float32("nan") for k, v in tuned(1).items()}, "NaN or infinite"),
    "a model": (models.random_model("7"), "no state file"),
    "nothing": ({}, "holds nothing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_time_state_that_does_not_fit_is_refused_in_one_sentence(tmp_path, model_files, case):
    tensors, message = REFUSED[case]
    path = models.write(tmp_path / "t.safetensors", tensors)
    with pytest.raises(StateError, match=message) as refused:
        open_state(path, layout_of(open_checkpoint(model_files["7"])))
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def test_rwkv_4_has_no_place_for_a_time_state(tmp_path, model_files):
    path = models.write(tmp_path / "t.safetensors", tuned(1))
    layout = layout_of(open_checkpoint(model_files["4"]))
    with pytest.raises(StateError, match="RWKV-5, 6 and 7"):
        open_state(path, layout)
    with pytest.raises(StateError, match="RWKV-5, 6 and 7"):
        save_state_file(tmp_path / "o.safetensors", StateFile("time_state", State.fresh(layout)))
    with pytest.raises(StateError, match=r"\.safetensors"):
        save_state_file(tmp_path / "o.pth", read_state_file(path))
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_state_with_nan_is_refused(tmp_path, model_files):
    layout = layout_of(open_checkpoint(model_files["7"]))
    state = random_state(layout, 1)
    state["wkv"][0, 0, 0, 0] = np.nan
    state.save(tmp_path / "s.safetensors")
    for read in (
        lambda: open_state(tmp_path / "s.safetensors", layout),
        lambda: read_state_file(tmp_path / "s.safetensors"),
    ):
        with pytest.raises(StateError, match="plane wkv has NaN"):
            read()


@pytest.mark.parametrize("container", ["safetensors", "pth", "state"])
def test_a_damaged_file_is_a_state_error_of_one_line_or_still_a_state(tmp_path, model_files, container):
    layout = layout_of(open_checkpoint(model_files["7"]))
    path = tmp_path / "s.safetensors"
    if container == "state":
        random_state(layout, 1).save(path)
    else:
        path = written(tmp_path, tuned(1), container, "F32")
    good, rng = path.read_bytes(), np.random.default_rng(1)
    refused = 0
    for at in [*rng.integers(0, len(good), 120), *range(16)]:
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bad if at % 3 else bad[:at])
        try:
            open_state(path, layout)
        except StateError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_a_folder_or_a_missing_file_is_refused(tmp_path, model_files):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StateError, match=str(path)):
            open_state(path, layout_of(open_checkpoint(model_files["7"])))


def test_the_verbs_work_and_refuse_in_one_line(tmp_path, model_files, rwkv, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout = layout_of(open_checkpoint(model_files["7"]))
    random_state(layout, 1, 5).save(tmp_path / "a")
    random_state(layout, 2, 8).save(tmp_path / "b")
    written(tmp_path, tuned(1), "pth", "BF16")
    rwkv("state", "blend", "a", "b", "--weight", 0.25, "-o", "c")
    assert open_state(tmp_path / "c", layout) == blend(
        random_state(layout, 1, 5), random_state(layout, 2, 8), 0.25
    )
    told = json.loads(rwkv("state", "info", "c", "--json", "-m", model_files["7"]))
    assert (told["kind"], told["tokens"], told["fingerprint"]) == ("state", 8, layout.fingerprint)
    assert told["planes"]["wkv"]["shape"] == [2, 2, 8, 8] and told["planes"]["wkv"]["norm"] > 0
    rwkv("state", "convert", "t.pth", "d", "-m", model_files["7"])
    assert open_state(tmp_path / "d", layout) == open_state(tmp_path / "t.pth", layout)
    assert "time_state" in rwkv("state", "info", "t.pth")
    assert "exists" in rwkv("state", "blend", "a", "b", "-o", "c", status=2)
    assert "another model" in rwkv("state", "info", "a", "-m", model_files["6"], status=2)
    assert "--model" in rwkv("state", "convert", "t.pth", "e", status=2)
    assert "--model" in rwkv("state", "blend", "a", "t.pth", "-o", "e", status=2)
    assert "absent" in rwkv("state", "info", "absent", status=2)
    assert not (tmp_path / "e").exists()
