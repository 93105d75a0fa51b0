import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import H, N, canonical, write_torch

from rwkv_engine.checkpoints import Checkpoint, open_checkpoint
from rwkv_engine.errors import CheckpointError, UnknownLayout, WrongShape

Arrays = dict[str, np.ndarray]


def written(folder: Path, arrays: Arrays) -> Checkpoint:
    """Open the arrays as a safetensors file."""
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "model.safetensors"
    )
    return open_checkpoint(folder)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def web_rwkv(arrays: Arrays) -> Arrays:
    """What web-rwkv's converter does: renames, transposes, repeats the scalars of v5.1."""
    result = {}
    for name, array in arrays.items():
        if name.endswith(("time_decay", "time_faaaa")) and array.shape == (H,):
            array = np.repeat(array[:, None], N, 1)
        if name.endswith(
            ("_w1", "_w2", "att.w1", "att.w2", "a1", "a2", "v1", "v2", "g1", "g2", "time_state")
        ):
            array = array.swapaxes(-1, -2)
        result[replaced(name, ("time_faaaa", "time_first"), ("time_maa", "time_mix"))] = array
    return result


def hugging_face(arrays: Arrays) -> Arrays:
    words = [
        ("emb.", "rwkv.embeddings."),
        ("ln_out", "rwkv.ln_out"),
        ("blocks.", "rwkv.blocks."),
        (".att.", ".attention."),
    ]
    words += [
        (".ffn.", ".feed_forward."),
        (".ln0.", ".pre_ln."),
        ("time_mix_k", "time_mix_key"),
        ("time_mix_v", "time_mix_value"),
    ]
    words += [("time_mix_r", "time_mix_receptance"), ("time_mix_g", "time_mix_gate")]
    return {replaced(name, *words): array for name, array in arrays.items()}


def fla(arrays: Arrays) -> Arrays:
    words = [
        ("emb.", "model.embeddings."),
        ("ln_out", "model.norm"),
        ("head.", "lm_head."),
        ("blocks.", "model.layers."),
    ]
    words += [
        (".ln0.", ".pre_norm."),
        (".ln1.", ".attn_norm."),
        (".ln2.", ".ffn_norm."),
        (".att.", ".attn."),
        ("attn.ln_x", "attn.g_norm"),
    ]
    words += [(f"attn.{name}", f"attn.{name[0]}_proj") for name in ("receptance", "key", "value", "output")]
    words += [(f"attn.{part}0", f"attn.{part}_lora.lora.2.bias") for part in "wav"]
    words += [(f"attn.{part}1", f"attn.{part}_lora.lora.0.weight") for part in "wavg"]
    words += [(f"attn.{part}2", f"attn.{part}_lora.lora.2.weight") for part in "wavg"]
    result = {}
    for name, array in arrays.items():
        name = replaced(name, *words)
        array = array.T if "_lora.lora" in name and "weight" in name else array
        result[name] = array.reshape(-1) if name.endswith(("bias", "k_k", "k_a", "ffn.x_k")) else array
    return result


def fla_fused(arrays: Arrays) -> Arrays:
    """The token-shift weights of a layer as one tensor; layer 0 without value residual."""
    result = {
        name: array
        for name, array in fla(arrays).items()
        if ".attn.x_" not in name and "layers.0.attn.v_lora" not in name
    }
    for block in range(3):
        parts = [arrays[f"blocks.{block}.att.x_{part}"].reshape(-1) for part in "rwkvag"]
        result[f"model.layers.{block}.attn.x_x"] = np.stack(parts)
    return result


def wrapped(arrays: Arrays) -> Arrays:
    return {f"_forward_module.model.{name}": array for name, array in arrays.items()}


def inside(wrapper: str) -> Callable[[Arrays], Arrays]:
    """What torch.compile or FSDP around each block, or PEFT around the model and its matrices, make of names."""
    return lambda arrays: {
        name.replace(".att.", f".{wrapper}.att.").replace("blocks.", f"{wrapper}.blocks."): array
        for name, array in arrays.items()
    }


def peft(arrays: Arrays) -> Arrays:
    return {
        f"base_model.model.{name.replace('.key.', '.key.base_layer.')}": array
        for name, array in arrays.items()
    }


CASES: list[tuple[str, str, Callable[[Arrays], Arrays]]] = [
    *[("BlinkDL", version, dict) for version in ("4", "5.0", "5.1", "5.2", "6", "7")],
    ("BlinkDL", "7", wrapped),
    ("BlinkDL", "7", inside("_orig_mod")),
    ("BlinkDL", "6", inside("_fsdp_wrapped_module")),
    ("BlinkDL", "7", peft),
    *[("web-rwkv", version, web_rwkv) for version in ("5.2", "6", "7")],
    *[(f"Hugging Face v{version[0]}", version, hugging_face) for version in ("4", "5.2", "6")],
    ("fla", "7", fla),
]


@pytest.mark.parametrize(
    "layout, version, rename",
    CASES,
    ids=[f"{n} {layout}-{version}" for n, (layout, version, _) in enumerate(CASES)],
)
def test_every_tensor_of_the_layout_comes_back_under_its_canonical_name(tmp_path, layout, version, rename):
    arrays = canonical(version)
    checkpoint = written(tmp_path, rename(arrays))
    assert checkpoint.layout == layout and checkpoint.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        tensor = checkpoint.tensors[name]
        assert tensor.shape == tensor.bits().shape == array.shape and np.array_equal(
            tensor.float32(), array
        ), name


def test_fused_token_shift_of_fla_is_cut_into_its_six_parts(tmp_path):
    arrays = canonical("7")
    checkpoint = written(tmp_path, fla_fused(arrays))
    assert arrays.keys() - checkpoint.tensors.keys() == {f"blocks.0.att.v{n}" for n in range(3)}
    assert all(np.array_equal(tensor.float32(), arrays[name]) for name, tensor in checkpoint.tensors.items())


def test_scalar_decay_of_v5_1_is_read_from_web_rwkv_as_repeated(tmp_path):
    arrays = canonical("5.1")
    tensors = written(tmp_path, web_rwkv(arrays)).tensors
    for tail in ("time_decay", "time_faaaa"):
        assert np.array_equal(
            tensors[f"blocks.1.att.{tail}"].float32(),
            np.repeat(arrays[f"blocks.1.att.{tail}"][:, None], N, 1),
        )


@pytest.mark.parametrize("version, rename", [("6", dict), ("6", web_rwkv), ("7", dict), ("7", web_rwkv)])
def test_a_time_state_is_kept_in_blinkdls_orientation(tmp_path, version, rename):
    state = np.arange(H * N * N, dtype=np.float32).reshape(H, N, N)
    checkpoint = written(tmp_path, rename(canonical(version) | {"blocks.1.att.time_state": state}))
    assert np.array_equal(checkpoint.tensors["blocks.1.att.time_state"].float32(), state)


@pytest.mark.parametrize("rename", [dict, web_rwkv])
def test_square_low_rank_matrices_follow_the_others(tmp_path, rename):
    arrays = canonical("7")
    for block in range(3):
        for part in ("w1", "w2"):
            arrays[f"blocks.{block}.att.{part}"] = np.random.default_rng(block).standard_normal(
                (24, 24), np.float32
            )
    tensors = written(tmp_path, rename(arrays)).tensors
    assert np.array_equal(tensors["blocks.2.att.w1"].float32(), arrays["blocks.2.att.w1"])


def test_transposed_matrices_are_views_of_the_file(tmp_path):
    bits = written(tmp_path, fla(canonical("7"))).tensors["blocks.1.att.w1"].bits()
    assert not bits.flags.owndata and bits.strides[0] < bits.strides[1]


def test_tied_embeddings_are_the_head_where_config_json_says_so(tmp_path):
    arrays = canonical("7")
    renamed = {name: array for name, array in fla(arrays).items() if name != "lm_head.weight"}
    assert "head.weight" not in written(tmp_path, renamed).tensors
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    assert np.array_equal(open_checkpoint(tmp_path).tensors["head.weight"].float32(), arrays["emb.weight"])


def test_a_tensor_with_no_place_in_a_foreign_layout_is_refused_by_its_own_name(tmp_path):
    arrays = fla(canonical("7")) | {"model.layers.0.attn.r_proj.bias": np.zeros(24, np.float32)}
    with pytest.raises(UnknownLayout, match="'model.layers.0.attn.r_proj.bias' has no place"):
        written(tmp_path, arrays)


def test_a_fused_tensor_of_the_wrong_height_is_refused(tmp_path):
    with pytest.raises(WrongShape, match="wanted 6 rows"):
        written(
            tmp_path, fla_fused(canonical("7")) | {"model.layers.0.attn.x_x": np.zeros((5, 24), np.float32)}
        )


REFUSED = {
    "RWKV-7b": canonical("7") | {"blocks.0.qkv.q.weight": np.zeros((2, 2), np.float32)},
    "RWKV-8": canonical("7") | {"blocks.0.rosa.emb": np.zeros((2, 2), np.float32)},
    "ARWKV7, RWKV6Qwen2": {
        f"model.{name}": np.zeros((2, 2), np.float32)
        for name in (
            "embed_tokens.weight",
            "layers.0.self_attn.receptance.weight",
            "layers.0.mlp.up_proj.weight",
        )
    },
    "tuned initial state of 2 layers": {
        f"blocks.{n}.att.time_state": np.zeros((H, N, N), np.float32) for n in range(2)
    },
    "model.embed_tokens.weight.*model.layers.0.self_attn": {
        name: np.zeros((2, 2), np.float32)
        for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight")
    },
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_model_that_is_not_run_is_refused_and_said_what_it_is(tmp_path, words):
    with pytest.raises(UnknownLayout, match=words):
        written(tmp_path, REFUSED[words])
    with pytest.raises(UnknownLayout, match=words):
        open_checkpoint(write_torch(tmp_path / "m.pth", REFUSED[words]))


@pytest.mark.parametrize("number", ["9" * 50, "²", "01", "-1", ""])
def test_a_block_without_a_proper_number_is_refused(tmp_path, number):
    with pytest.raises(UnknownLayout, match="has no place"):
        written(tmp_path, canonical("7") | {f"blocks.{number}.ln1.weight": np.zeros(2, np.float32)})


def test_two_tensors_of_one_canonical_name_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="two tensors both are 'head.weight'"):
        written(tmp_path, canonical("7") | {"module.head.weight": np.zeros(2, np.float32)})
