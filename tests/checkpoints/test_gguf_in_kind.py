"""Quantized GGUF files run as int8 or int4, made of their blocks; as float32 they keep their exact numbers."""

import dataclasses
import tracemalloc

import models
import numpy as np
import pytest
from checkpoint_files import write_torch
from gguf_files import fused, gguf, v6_names, v7_names, write

import rwkv_engine
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.fingerprint import digests
from rwkv_engine.checkpoints.names import EMBEDDING, lies_in
from rwkv_engine.formats import FORMATS, format_for
from rwkv_engine.numbers.blocks import Blocks, Kind
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.folders import cache_folder

RNG = np.random.default_rng(3)
SHAPE = {"heads": 2, "head_size": 32, "vocab": 64}
TOKENS = np.random.default_rng(5).integers(0, 64, 20)
#: bytes of a block of 32
SIZES = {"Q8_0": 34, "Q5_0": 22, "Q4_0": 18, "IQ4_NL": 18}


def random_blocks(kind, rows, cols, scales=None):
    """Blocks of random bytes; float16 scales between 1e-6 and 1, or those given."""
    data = RNG.integers(0, 256, (rows, cols // 32, SIZES[kind]), np.uint8)
    if kind == "Q8_0":
        data[..., 2:][data[..., 2:] == 0x80] = 0x81  # -128, which ggml does not make
    scale = 10 ** RNG.uniform(-6, 0, (rows, cols // 32)) * RNG.choice([-1, 1], (rows, cols // 32))
    chosen = np.broadcast_to(scale if scales is None else scales, (rows, cols // 32))
    data[..., :2] = chosen.astype(np.float16)[..., None].view(np.uint8)
    return data.reshape(rows, -1)


def tensor(kind, data, scale=1.0):
    """A matrix of these blocks."""
    number = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[number]

    def decode(part):
        with np.errstate(invalid="ignore"):
            return gguf.quants.dequantize(part, number)

    blocks = Blocks(Kind(kind, values, size), data, decode, scale)
    shape = len(data), data.shape[1] // size * values
    return Tensor("t", shape, "F32", blocks.float32, kind=blocks.kind, blocks=lambda: blocks)


def numbers(name, one):
    """A tensor's numbers after it was packed in a format."""
    format = FORMATS[name]
    return format.to_float32(format.stored(one), *one.shape)


@pytest.mark.parametrize("kind", SIZES)
def test_whole_numbers_times_scales_are_the_numbers_of_ggml(kind):
    one = tensor(kind, random_blocks(kind, 20, 96), 4.0)
    found = one.integers()(3, 15)
    np.testing.assert_array_equal(
        (found[0] * found[1][..., None]).reshape(12, 96), one.float32()[3:15], strict=True
    )
    np.testing.assert_array_equal(one.rows()(3, 15), one.float32()[3:15])


@pytest.mark.parametrize("kind", SIZES)
def test_to_int8_only_scales_are_rounded_and_those_of_8_bits_are_exact(kind):
    one = tensor(kind, random_blocks(kind, 40, 96))
    want, got = one.float32(), numbers("int8", one)
    assert (np.abs(got - want) <= np.abs(want) * 2**-8).all() and not np.array_equal(got, want)
    exact = tensor(kind, random_blocks(kind, 40, 96, RNG.integers(128, 256, (40, 3)) * 2.0**-14))
    np.testing.assert_array_equal(numbers("int8", exact), exact.float32())


@pytest.mark.parametrize("kind", SIZES)
def test_to_int8_whole_numbers_lose_less_than_numbers_that_are_rounded_again(kind):
    one = tensor(kind, random_blocks(kind, 64, 256))
    again = dataclasses.replace(one, blocks=None)
    kept, rounded = (((numbers("int8", t) - one.float32()) ** 2).mean() for t in (one, again))
    assert kept < rounded / 2


def test_to_int4_codes_of_its_own_table_stay_and_scales_are_rounded():
    one = tensor("IQ4_NL", random_blocks("IQ4_NL", 40, 96, RNG.uniform(-1, 1, (40, 3))))
    values, scale = one.integers()(0, 40)
    off = np.abs(numbers("int4", one) - one.float32()).reshape(40, 3, 32)
    assert (off <= np.abs(values) * (np.abs(scale).max(axis=1) / 253)[:, None, None]).all()
    even = tensor("IQ4_NL", random_blocks("IQ4_NL", 40, 96, RNG.choice([-127, 1, 5, 127], (40, 3)) / 128))
    even.blocks().data[:, :2] = np.float16(127 / 128).reshape(1, 1).view(np.uint8)
    np.testing.assert_allclose(numbers("int4", even), even.float32(), rtol=1e-6)


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("kind", SIZES)
def test_a_scale_that_is_no_number_is_not_lost_and_one_of_zero_gives_zeros(kind, format):
    scales = np.ones((40, 3))
    scales[1, 1], scales[17, 2], scales[5] = np.nan, np.inf, 0
    got = numbers(format, tensor(kind, random_blocks(kind, 40, 96, scales)))
    lost = ~np.isfinite(got).any(axis=1)
    assert lost.tolist() == [row in (1, 17) for row in range(40)] or (
        np.isnan(got[1, 32:64]).all() and np.isnan(got[17, 64:]).all() and np.isfinite(got[2:17]).all()
    )
    assert not got[5].any()


def test_a_block_with_minus_128_is_rounded_again():
    data = random_blocks("Q8_0", 16, 64)
    data[7, 5] = 0x80
    one = tensor("Q8_0", data)
    again = dataclasses.replace(one, blocks=None)
    np.testing.assert_array_equal(FORMATS["int8"].stored(one), FORMATS["int8"].stored(again))


def weightless(kind, rows):
    """A matrix that only says its type and shape."""
    number = gguf.GGMLQuantizationType[kind]
    known = None if kind in ("F32", "F16", "BF16") else Kind(kind, *gguf.GGML_QUANT_SIZES[number])
    dtype = kind if known is None else "F32"
    return Tensor("t", (rows, 256), dtype, lambda: np.zeros((rows, 256), np.float32), kind=known)


@pytest.mark.parametrize(
    ("held", "name"),
    [
        (["F16"], "f16"),
        (["F16", "F32"], "f32"),
        (["Q8_0"], "int8"),
        (["Q6_K"], "int8"),
        (["Q5_1"], "int8"),
        (["Q5_K"], "int8"),
        (["Q4_1"], "int4"),
        (["Q4_K"], "int4"),
        (["IQ4_NL"], "int4"),
        (["Q2_K"], "int4"),
        (["Q4_K", "Q4_K", "Q6_K"], "int4"),
        (["Q4_K", "Q6_K"], "int8"),
        (["Q3_K", "Q4_K", "Q6_K"], "int4"),
        (["F16", "Q4_0"], "f32"),
        (["F16", "Q4_0", "Q4_0", "Q4_0", "Q4_0"], "int4"),
    ],
)
def test_the_types_that_hold_most_bytes_of_the_matrices_choose_the_format(held, name):
    tensors = [weightless(kind, 16) for kind in held]
    assert format_for(tensors, None).name == name
    assert format_for(tensors, "f32").name == "f32" and format_for(tensors, "int8").name == "int8"


def file_of(path, kind, version="7", changed=None):
    """A GGUF of a random model whose matrices and embedding are of one type; (path, its exact numbers)."""
    tensors = models.random_model(version, **SHAPE)
    names = (v7_names if version == "7" else v6_names)(tensors)
    names = fused(names, *(("x_", "rwkvag") if version == "7" else ("lerp_", "wkvrg")), layers=2)
    marks = ("receptance.weight", "key.weight", "value.weight", "time_mix_output.weight", "gate.weight")
    types = {n: kind for n in names if n.endswith(marks) or n in ("token_embd.weight", "output.weight")}
    write(path, "rwkv" + version, names | (changed or {}), types, head_size=32)
    return path, {name: one.float32() for name, one in open_checkpoint(path).tensors.items()}


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(("kind", "format"), [("Q8_0", "int8"), ("Q4_0", "int4")])
def test_a_quantized_file_is_run_in_kind_from_the_cache(tmp_path, own_cache, tokenizer_file, kind, format):
    path, _ = file_of(tmp_path / "m.gguf", kind)
    stored = open_checkpoint(path).tensors["blocks.1.ffn.value.weight"]
    model = rwkv_engine.load(path, tokenizer=tokenizer_file)
    (kept,) = cache_folder().glob(f"*-{format}-*.safetensors")
    assert model.format == format and model.checkpoint.container == "packed"
    made = model.checkpoint.tensors["blocks.1.ffn.value.weight"]
    form = lies_in("blocks.1.ffn.value.weight", FORMATS[format])
    np.testing.assert_array_equal(made.bits(), form.stored(stored))
    before = kept.stat()
    assert rwkv_engine.load(path, format, tokenizer=tokenizer_file).format == format
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert rwkv_engine.load(path, "f32", tokenizer=tokenizer_file).format == "f32"
    assert rwkv_engine.load(path, tokenizer=tokenizer_file, cache=False).format == format


@pytest.mark.slow  # compiles three programs
@pytest.mark.parametrize(("kind", "most"), [("Q8_0", 0.02), ("Q4_0", 0.3)])
def test_float32_gives_the_exact_numbers_and_a_cache_changes_nothing(
    tmp_path, own_cache, tokenizer_file, kind, most
):
    path, exact = file_of(tmp_path / "m.gguf", kind)
    plain = models.write(tmp_path / "m.safetensors", exact)

    def logits(source, weights=None, **options):
        model = rwkv_engine.load(source, weights, threads=1, tokenizer=tokenizer_file, **options)
        return model.feed(TOKENS, model.new_state(), every=True)

    want, got = logits(plain, "f32"), logits(path)
    np.testing.assert_array_equal(logits(path, "f32"), want)
    assert 0 < np.abs(got - want).max() < np.abs(want).max() * most
    np.testing.assert_array_equal(logits(path), got)
    np.testing.assert_array_equal(logits(path, cache=False), got)


def test_a_quantized_embedding_is_kept_in_16_bits(tmp_path, own_cache, tokenizer_file):
    path, exact = file_of(tmp_path / "m.gguf", "Q8_0", version="6")
    model = rwkv_engine.load(path, tokenizer=tokenizer_file)
    embedding = model.checkpoint.tensors[EMBEDDING]
    assert embedding.dtype == "F16" and model.checkpoint.container == "packed"
    np.testing.assert_allclose(embedding.float32(), exact[EMBEDDING], rtol=2**-11, atol=2**-24)
    target = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(path, target, "int8", tokenizer=tokenizer_file)
    assert open_checkpoint(target).tensors[EMBEDDING].dtype == "F16"


def test_the_same_bytes_in_another_type_or_scale_are_another_model(tmp_path):
    checkpoint = open_checkpoint(file_of(tmp_path / "m.gguf", "Q8_0")[0])
    data = random_blocks("Q4_0", 64, 64)
    found = set()
    for one in (tensor("Q4_0", data), tensor("IQ4_NL", data), tensor("Q4_0", data, 2.0)):
        tensors = dict(checkpoint.tensors) | {"head.weight": one}
        found.add(digests(dataclasses.replace(checkpoint, tensors=tensors, identities=()))[1])
    assert len(found) == 3


def test_a_lora_on_a_quantized_file_runs_in_kind_too(tmp_path, own_cache, tokenizer_file):
    path, exact = file_of(tmp_path / "m.gguf", "Q8_0")
    half = RNG.normal(0, 0.2, (64, 4)).astype(np.float32)
    halves = {"blocks.0.att.key.lora_A": half.T.copy(), "blocks.0.att.key.lora_B": half}
    lora = write_torch(tmp_path / "lora.pth", halves)
    model = rwkv_engine.load(path, tokenizer=tokenizer_file, lora=lora, lora_alpha=8)
    name = "blocks.0.att.key.weight"
    got, want = model.checkpoint.tensors[name].float32(), exact[name] + 2 * half @ half.T
    assert model.format == "int8" and np.abs(got - want).max() < np.abs(want).max() * 0.01


def test_info_says_what_a_quantized_file_is_run_as(tmp_path, rwkv, tokenizer_file):
    path, _ = file_of(tmp_path / "m.gguf", "Q4_0", changed={"output.weight": np.zeros((64, 64), np.float32)})
    told = rwkv("info", path, "--tokenizer", tokenizer_file)
    assert "matrices    Q4_0, run as int4\n" in told and "types       F32, Q4_0\n" in told
    weights = sum(one.nbytes for one in open_checkpoint(path).tensors.values())
    assert weights < path.stat().st_size and f"weights     {weights:,} bytes\n" in told


@pytest.mark.parametrize(("kind", "format", "rows"), [("Q8_0", "int8", 1 << 15), ("Q4_K", "int8", 1 << 13)])
def test_a_large_matrix_is_never_held_as_float32(tmp_path, kind, format, rows):
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    one = tensor(kind, np.zeros((rows, 1024 // size[0] * size[1]), np.uint8))
    tracemalloc.start()
    made = FORMATS[format].stored(one)
    peak = tracemalloc.get_traced_memory()[1] - made.nbytes
    tracemalloc.stop()
    assert peak < rows * 1024 * 4 * 0.75


def test_hashing_a_quantized_file_decodes_samples_alone(tmp_path, monkeypatch):
    path, _ = file_of(
        tmp_path / "m.gguf", "Q8_0", changed={"output.weight": np.zeros((4096, 320), np.float32)}
    )
    checkpoint, sizes = open_checkpoint(path), []
    decode = gguf.quants.dequantize
    monkeypatch.setattr(
        gguf.quants, "dequantize", lambda data, kind: sizes.append(len(data)) or decode(data, kind)
    )
    digests(checkpoint)
    assert max(sizes) < 1000
