"""States: forks, files, and what is refused."""

import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from rwkv_engine import StateError
from rwkv_engine import state as states
from rwkv_engine.numbers.state_file import checksum
from rwkv_engine.state import Advance, Plane, State, StateLayout, touch

LAYOUT = StateLayout(
    (Plane("att_prev", (2, 3)), Plane("pp", (2, 3), -1e30), Plane("wkv", (2, 1, 3, 3))), "f" * 64
)


def filled(seed=0, layout=LAYOUT):
    state = State.fresh(layout)
    state.block[:] = np.random.default_rng(seed).standard_normal(layout.size)
    state.position = 17 + seed
    return state


def test_a_fresh_state_holds_each_planes_fill():
    state = State.fresh(LAYOUT)
    assert state.names == ("att_prev", "pp", "wkv")
    assert not state["att_prev"].any() and not state["wkv"].any() and (state["pp"] == np.float32(-1e30)).all()
    assert state.position == 0 and state.nbytes == 30 * 4
    with pytest.raises(KeyError):
        state["none"]


def test_a_fork_is_equal_and_independent():
    state = filled()
    fork = state.fork()
    assert fork == state and fork is not state
    fork["wkv"][1, 0, 2, 2] += 1
    assert fork != state
    fork.copy_from(state)
    assert fork == state
    fork.position += 1
    assert fork != state


def test_a_saved_state_comes_back_bit_for_bit(tmp_path):
    state = filled(3)
    state.save(tmp_path / "s.safetensors")
    assert states.load(tmp_path / "s.safetensors", LAYOUT) == state
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


def test_a_state_of_another_model_is_refused(tmp_path):
    filled().save(tmp_path / "s.safetensors")
    other = StateLayout(LAYOUT.planes, "e" * 64)
    with pytest.raises(StateError, match="another model"):
        states.load(tmp_path / "s.safetensors", other)
    with pytest.raises(StateError, match="another model"):
        filled().copy_from(filled(layout=other))


def test_a_damaged_file_is_refused_wherever_a_bit_flips(tmp_path):
    path, rng = tmp_path / "s.safetensors", np.random.default_rng(1)
    filled().save(path)
    good = path.read_bytes()
    for at in rng.integers(0, len(good), 300):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bad)
        with pytest.raises(StateError) as refused:
            states.load(path, LAYOUT)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"not a state at all", b"\xff" * 100])
def test_a_file_that_is_no_state_is_refused(tmp_path, content):
    path = tmp_path / "s.safetensors"
    path.write_bytes(content)
    with pytest.raises(StateError, match="not a"):
        states.load(path, LAYOUT)


def test_a_truncated_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "s.safetensors"
    filled().save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StateError, match="not a readable state file"):
        states.load(path, LAYOUT)
    with pytest.raises(StateError, match="FileNotFoundError"):
        states.load(tmp_path / "none", LAYOUT)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "s.safetensors"
    filled(1).save(path)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(StateError, match="s.safetensors: the state cannot be saved: disk full"):
        filled(2).save(path)
    assert states.load(path, LAYOUT) == filled(1)
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


USES = {
    "fork": lambda state, folder: state.fork(),
    "save": lambda state, folder: state.save(folder / "s.safetensors"),
    "copy": lambda state, folder: filled().copy_from(state),
    "position": lambda state, folder: state.position,
    "a plane": lambda state, folder: state["wkv"],
    "compare": lambda state, folder: state == filled(),
    "feed": lambda state, folder: Advance([filled(), state], [1, 1]),
}


@pytest.mark.parametrize("use", USES)
def test_a_state_whose_feed_was_interrupted_is_refused_by_everything(tmp_path, use):
    state, other = filled(1), filled(2)
    with pytest.raises(KeyboardInterrupt), Advance([state, other], [5, 5]):
        touch([state])
        raise KeyboardInterrupt
    with pytest.raises(StateError, match="was interrupted") as refused:
        USES[use](state, tmp_path)
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())
    assert other == filled(2)  # no pass had begun to move it
    state.copy_from(other)
    assert state == other


@pytest.mark.parametrize("use", [*USES, "overwrite"])
def test_a_state_that_is_being_fed_is_refused_by_everything_else(tmp_path, use):
    state = filled(1)
    with Advance([state], [5]):
        touch([state])
        with pytest.raises(StateError, match="another thread feeds it"):
            {**USES, "overwrite": lambda state, folder: state.copy_from(filled())}[use](state, tmp_path)
    assert state.position == filled(1).position + 5


def test_states_that_a_feed_may_not_have_are_left_as_they_were():
    free, taken = filled(1), filled(2)
    with Advance([taken], [3]), pytest.raises(StateError):
        Advance([free, taken], [1, 1])
    assert free == filled(1) and taken.position == filled(2).position + 3


def written(path, planes=None, layout=LAYOUT, **notes):
    """A state file by the package safetensors, with a checksum that fits; a note that is None is left out."""
    state = filled(1)
    told = {"rwkv_engine.state": "1", "fingerprint": layout.fingerprint, "tokens": "18"} | notes
    told = {key: value for key, value in told.items() if value is not None}
    told["checksum"] = checksum(told, state.block)
    safetensors.numpy.save_file(planes or {name: state[name] for name in state.names}, path, told)
    return path


def test_the_safetensors_package_reads_what_is_saved_and_what_it_writes_is_read(tmp_path):
    state = filled(1)
    state.save(tmp_path / "ours")
    with safetensors.safe_open(tmp_path / "ours", "numpy") as theirs:
        assert set(theirs.keys()) == set(state.names) and theirs.metadata()["tokens"] == "18"
        for name in state.names:
            np.testing.assert_array_equal(theirs.get_tensor(name), state[name])
    assert states.load(written(tmp_path / "theirs"), LAYOUT) == state


@pytest.mark.parametrize(
    "tokens", [None, "", "-1", "²", "1_0", " 5", "+5", "5.0", "1e3", "9" * 5000, "٣", "x" * 9999]
)
def test_a_count_of_tokens_that_is_none_is_refused(tmp_path, tokens):
    with pytest.raises(StateError, match="tokens, want a whole number") as refused:
        states.load(written(tmp_path / "s", tokens=tokens), LAYOUT)
    assert len(str(refused.value)) <= 500 and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"planes": {"x" * 50_000: np.zeros(3, np.float32)}},
        {"planes": {"att_prev": np.zeros((1,) * 8, np.float32)}},
        {"planes": {"att_prev": np.zeros((2, 3))}},
        {"fingerprint": "\n" * 90_000},
        {"fingerprint": None},
        {"rwkv_engine.state": "y" * 90_000},
        {"rwkv_engine.state": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_odd_notes_and_planes_are_one_short_sentence(tmp_path, change):
    with pytest.raises(StateError) as refused:
        states.load(written(tmp_path / "s", **change), LAYOUT)
    assert len(str(refused.value)) <= 500 and "\n" not in str(refused.value)


def test_a_message_is_short_however_long_the_path_is(tmp_path):
    deep = tmp_path.joinpath(*["d" * 200] * 8)
    deep.mkdir(parents=True)
    for path in (deep / "none", written(deep / "s", tokens="-1")):
        with pytest.raises(StateError) as refused:
            states.load(path, LAYOUT)
        assert len(str(refused.value)) <= 500


@pytest.mark.parametrize(
    "header", ["{}", '{"__metadata__": null}', '{"__metadata__": {"tokens": 5}}', "[]", "[" * 9999]
)
def test_a_header_that_is_none_is_refused(tmp_path, header):
    (tmp_path / "s").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(StateError) as refused:
        states.load(tmp_path / "s", LAYOUT)
    assert len(str(refused.value)) <= 500


def test_a_file_far_too_large_is_not_read(tmp_path):
    with open(tmp_path / "s", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StateError, match="over"):
        states.load(tmp_path / "s", LAYOUT)
