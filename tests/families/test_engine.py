"""The engine against the slow twins on random models: every family, shape and float format."""

import numpy as np
import pytest
import reference

TOKENS = np.random.default_rng(5).integers(0, 64, 75)  # longer than a chunk of 64
#: heads x head size, channel mix, low ranks: multiples of the vector width and none, wide and narrow heads
SHAPES = {
    "2 x 8": {},
    "3 x 8, odd F": {"heads": 3, "ffn": 83, "ranks": (3, 4, 9, 2)},
    "1 x 40, F 3.5C": {"heads": 1, "head_size": 40, "ffn": 140, "ranks": (17, 1, 33, 8)},
    "2 x 16": {"head_size": 16, "seed": 3},
    "3 x 24": {"heads": 3, "head_size": 24, "layers": 3},
    "1 x 64": {"heads": 1, "head_size": 64, "layers": 1},
    "4 x 32": {"heads": 4, "head_size": 32, "ranks": (32, 16, 8, 64)},
}


def close(got, want):
    """Within 1e-4 of the largest number."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("version", reference.VERSIONS)
def test_logits_and_state_are_the_twins(load, version, shape):
    model, tensors = load(version, **shape)
    assert model.config.version == version
    want, planes = reference.forward(version, tensors, TOKENS)
    state = model.new_state()
    close(model.feed(TOKENS, state, every=True), want)
    assert set(state.names) == set(planes)
    for name in state.names:
        close(state[name].reshape(planes[name].shape), planes[name])


@pytest.mark.parametrize("lanes", [2, 3, 66])
@pytest.mark.parametrize("version", reference.VERSIONS)
def test_more_lanes_give_what_one_gives(load, version, lanes):
    shape = SHAPES["3 x 24"]
    one, more = load(version, **shape)[0], load(version, threads=lanes, **shape)[0]
    first, second = one.new_state(), more.new_state()
    np.testing.assert_array_equal(one.feed(TOKENS, first, every=True), more.feed(TOKENS, second, every=True))
    for token in TOKENS[:5]:
        np.testing.assert_array_equal(one.feed([token], first), more.feed([token], second))
    np.testing.assert_array_equal(first.block, second.block)


@pytest.mark.parametrize("version", reference.VERSIONS)
def test_a_chunk_gives_what_single_tokens_give(load, version):
    model, _ = load(version, **SHAPES["4 x 32"])
    whole, single = model.new_state(), model.new_state()
    logits = model.feed(TOKENS, whole, every=True)
    close(np.array([model.feed([token], single) for token in TOKENS]), logits)
    close(single.block[np.abs(single.block) < 1e29], whole.block[np.abs(whole.block) < 1e29])
    close(model.feed(TOKENS, model.new_state()), logits[-1])
    assert whole.position == single.position == len(TOKENS)


@pytest.mark.slow_but("7-")
@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("version", ["4", "5.2", "6", "7"])
def test_a_half_precision_checkpoint_is_run_as_it_is_stored(load, version, dtype):
    model, tensors = load(version, dtype, **SHAPES["3 x 24"])
    assert model.format == dtype.lower()
    want, _ = reference.forward(version, tensors, TOKENS)
    close(model.feed(TOKENS, model.new_state(), every=True), want)
    single = model.new_state()
    close(np.array([model.feed([token], single) for token in TOKENS]), want)


@pytest.mark.slow_but("7-", "f32")
@pytest.mark.parametrize(
    ("version", "weights"), [*((v, None) for v in ("4", "5.0", "6", "7")), ("6", "int8"), ("7", "int8")]
)
def test_a_batch_gives_what_each_sequence_gives_alone(load, version, weights):
    model, _ = load(version, threads=2, weights=weights, **SHAPES["3 x 8, odd F"])
    lengths = (1, 70, 3, 30, 2)
    alone, together = [model.new_state() for _ in lengths], [model.new_state() for _ in lengths]
    starts = [model.feed([i], state) for i, state in enumerate(alone)]
    model.feed_batch([([i], state) for i, state in enumerate(together)])
    assert len(starts) == len(lengths)
    logits = model.feed_batch([(TOKENS[:n], state) for n, state in zip(lengths, together, strict=True)])
    for i, n in enumerate(lengths):
        close(logits[i], model.feed(TOKENS[:n], alone[i]))
        close(
            together[i].block[np.abs(together[i].block) < 1e29], alone[i].block[np.abs(alone[i].block) < 1e29]
        )
        assert together[i].position == n + 1
        if weights == "int8":
            np.testing.assert_array_equal(together[i].block, alone[i].block)


@pytest.mark.parametrize("layer0", ["absent", "present", "dummy"])
def test_the_unused_value_residual_of_layer_0_is_ignored(load, layer0):
    model, tensors = load("7", layer0_residual=layer0)
    want, _ = reference.forward("7", tensors, TOKENS[:9])
    close(model.feed(TOKENS[:9], model.new_state(), every=True), want)


@pytest.mark.slow_but("7-f32", "7-bf16", "7-int8")
@pytest.mark.parametrize(
    ("version", "weights"),
    [("7", "f32"), ("7", "bf16"), ("7", "f16"), *((v, "int8") for v in ("4", "5.2", "6", "7"))],
)
def test_another_weight_format_can_be_chosen(load, version, weights):
    model, tensors = load(version, weights=weights, **SHAPES["3 x 24"])
    want, _ = reference.forward(version, tensors, TOKENS)
    whole, single = model.new_state(), model.new_state()
    got = model.feed(TOKENS, whole, every=True)
    assert model.format == weights
    close(np.array([model.feed([token], single) for token in TOKENS]), got)
    if weights == "int8":  # not a bit may differ, or rounding inputs to integers would make a step of it
        np.testing.assert_array_equal(single.block, whole.block)
    assert (
        np.abs(got - want).max()
        < {"f32": 1e-4, "bf16": 0.1, "f16": 0.02, "int8": 0.1}[weights] * np.abs(want).max()
    )


@pytest.mark.slow_but("7-")
@pytest.mark.parametrize("weights", ["f32", "bf16", "f16", "int8"])
@pytest.mark.parametrize("version", reference.VERSIONS)
def test_pieces_of_two_tokens_and_more_give_the_same_bits_however_a_text_is_cut(load, version, weights):
    model, _ = load(version, weights=weights, **SHAPES["3 x 24"])
    tokens = [(7 * n) % model.vocab for n in range(64)]
    whole = model.new_state()
    model.feed(tokens, whole)
    for cuts in ((3, 61), (33, 31), (2, 62), (5, 2, 57), (16,) * 4):
        state, at = model.new_state(), 0
        for count in cuts:
            model.skim(tokens[at : at + count], state)
            at += count
        np.testing.assert_array_equal(state.block, whole.block, str(cuts))


def test_a_time_state_is_where_a_conversation_starts(checkpoints, tokenizer_file, tmp_path):
    import models

    import rwkv_engine

    for version in ("5.2", "6", "7"):
        _, tensors = checkpoints(version)
        tuned = np.random.default_rng(1).standard_normal((2, 2, 8, 8)).astype(np.float32)
        extra = {f"blocks.{i}.att.time_state": tuned[i] for i in range(2)}
        path = models.write(tmp_path / f"{version}.safetensors", tensors | extra)
        state = rwkv_engine.load(path, tokenizer=tokenizer_file).new_state()
        np.testing.assert_array_equal(state["wkv"], tuned.transpose(0, 1, 3, 2))
        assert not state["att_prev"].any()
