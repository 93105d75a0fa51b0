"""Files made to harm: nothing in them runs, and each is either opened or refused in one sentence."""

import pickle
import random
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import (
    canonical,
    dict_op,
    global_op,
    pickle_bytes,
    safetensors_bytes,
    storage_op,
    tensor_op,
    text_op,
    tuple_op,
    zip_torch,
)

from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.errors import CheckpointError, EngineError

BATCHES = 10
MEMORY = 64 << 20  #: bytes a hostile file may cost

SYSTEM = global_op("os", "system")
STACK_SYSTEM = text_op("os") + text_op("system") + b"\x93"


def short(raw: bytes) -> bytes:
    return b"U" + bytes([len(raw)]) + raw


def attacks(command: str) -> dict[str, bytes]:
    """Pickles that Python's unpickler would obey by running `command`, or that reach for what could."""
    argument = text_op(command)
    code = text_op(f"__import__('os').system({command!r})")
    nested = pickle_bytes(SYSTEM + tuple_op(argument) + b"R")
    imported = global_op("builtins", "__import__") + tuple_op(text_op("os")) + b"R"
    return {
        "REDUCE": SYSTEM + tuple_op(argument) + b"R",
        "STACK_GLOBAL": STACK_SYSTEM + argument + b"\x85R",
        "INST": b"(" + argument + b"ios\nsystem\n",
        "OBJ": b"(" + SYSTEM + argument + b"o",
        "eval": global_op("builtins", "eval") + tuple_op(code) + b"R",
        "python 2 eval": global_op("__builtin__", "eval") + tuple_op(code) + b"R",
        "getattr": global_op("builtins", "getattr") + tuple_op(imported, text_op("system")) + b"R" + tuple_op(argument) + b"R",
        "import": global_op("canary_module", "anything"),
        "stack import": text_op("canary_module") + text_op("anything") + b"\x93",
        "NEWOBJ": global_op("canary_module", "Class") + b")\x81",
        "NEWOBJ_EX": global_op("canary_module", "Class") + b")}\x92",
        "BUILD": global_op("canary_module", "Class") + b")\x81" + dict_op({"a": argument}) + b"b",
        "BUILD of a name": global_op("collections", "OrderedDict") + dict_op({"__call__": SYSTEM}) + b"b",
        "call of a dict": b"}" + tuple_op(argument) + b"R",
        "call of a tensor": tensor_op(storage_op("FloatStorage", "0", 1), 0, (1,), (1,)) + tuple_op(argument) + b"R",
        "EXT1": b"\x82\x01", "EXT2": b"\x83\x01\x00", "EXT4": b"\x84\x01\x00\x00\x00",
        "dotted": text_op("collections") + text_op("OrderedDict.fromkeys") + b"\x93" + tuple_op(b"]") + b"R",
        "escape": global_op("o\\x73", "syst\\em"),
        "module of torch": global_op("torch._utils", "sys"),
        "pickle in a pickle": global_op("torch.storage", "_load_from_bytes") + tuple_op(short(nested)) + b"R",
        "persistent": SYSTEM + b"Q",
        "persistent text": b"Pos.system\n",
        "hook": global_op("torch._utils", "_rebuild_tensor_v2") + tuple_op(SYSTEM, argument) + b"R",
        "state": global_op("torch._tensor", "_rebuild_from_type_v2") + tuple_op(SYSTEM, argument) + b"R",
        "buffer": b"\x97\x98",
    }  # fmt: skip


@pytest.mark.parametrize("name", attacks(""))
def test_a_pickle_that_calls_something_is_refused_and_runs_nothing(tmp_path, monkeypatch, name):
    canary = tmp_path / "canary"
    (tmp_path / "canary_module.py").write_text(f"open({str(canary)!r}, 'w').close()\nclass Class: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = dict_op({"emb.weight": attacks(f"touch {canary}")[name]})
    path = zip_torch(tmp_path / "m.pth", pickle_bytes(content), {"0": bytes(4)})
    with pytest.raises(CheckpointError, match="nothing of it was run|no dict of tensors") as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value) and not canary.exists() and "canary_module" not in sys.modules


@pytest.mark.parametrize("name", ["REDUCE", "STACK_GLOBAL", "INST", "OBJ", "eval", "getattr"])
def test_the_attacks_are_real_pythons_own_unpickler_obeys_them(tmp_path, name):
    pickle.loads(pickle_bytes(attacks(f"touch {tmp_path / 'canary'}")[name]))
    assert (tmp_path / "canary").exists()


def test_the_refusal_names_what_the_pickle_wanted(tmp_path):
    path = zip_torch(tmp_path / "m.pth", pickle_bytes(attacks("true")["REDUCE"]), {})
    with pytest.raises(CheckpointError, match=r"wants 'os\.system'"):
        open_checkpoint(path)


BOMBS: dict[str, Callable[[Path], object]] = {
    "header of empty lists": lambda path: path.write_bytes(
        safetensors_bytes('{"a":[' + "[]," * 690_000 + "[]]}")
    ),
    "header that is too long": lambda path: path.write_bytes(
        safetensors_bytes('{"a":[' + "[]," * 4_000_000 + "[]]}")
    ),
    "header of many names": lambda path: path.write_bytes(
        safetensors_bytes("{" + ",".join(f'"{n}":{{}}' for n in range(160_000)) + "}")
    ),
    "pickle of dicts": lambda path: zip_torch(path, pickle_bytes(b"}" * 399_000), {}),
    "pickle of remembered dicts": lambda path: zip_torch(path, pickle_bytes(b"}\x94" * 199_000), {}),
    "pickle of a far memo": lambda path: zip_torch(path, pickle_bytes(b"}r\xff\xff\xff\x7f" * 9), {}),
    "pickle of wide text": lambda path: zip_torch(
        path, pickle_bytes(text_op("a" * 4_000_000 + "\U0001f600")), {}
    ),
    "packed pickle": lambda path: zip_torch(
        path, pickle_bytes(b"}" * (64 << 20)), {}, method=zipfile.ZIP_DEFLATED
    ),
    "notes": lambda path: path.write_bytes(
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 10_000)
        + b"".join(struct.pack("<Q6sIB", 6, b"%06d" % n, 0, 1) for n in range(10_000))
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_would_swell_is_refused_in_little_memory(tmp_path, name):
    BOMBS[name](tmp_path / "bomb")
    tracemalloc.start()
    try:
        with pytest.raises(EngineError):
            open_checkpoint(tmp_path / "bomb")
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def model() -> dict[str, np.ndarray]:
    """A few tensors of each kind."""
    kept = (
        "emb.weight",
        "head.weight",
        "0.ln1.bias",
        "0.att.w1",
        "0.att.w2",
        "0.att.r_k",
        "0.att.x_r",
        "0.att.key.weight",
        "1.ffn.x_k",
    )
    return {name: array for name, array in canonical("7").items() if name.endswith(kept)}


def spoiled(rng: random.Random, content: bytes, pieces: tuple[bytes, ...]) -> bytes:
    """The bytes after one to four random changes."""
    raw = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(raw) + 1)
        match rng.randrange(6):
            case 0:
                raw[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                raw[place:place] = rng.choice(pieces)
            case 2:
                piece = rng.choice(pieces)
                raw[place : place + len(piece)] = piece
            case 3:
                del raw[place : place + rng.choice((1, 2, 8, 200))]
            case 4:
                other = rng.randrange(len(raw) + 1)
                raw[place:place] = raw[other : other + rng.randrange(60)]
            case _:
                del raw[rng.choice((place, len(raw))) :]
        raw = raw or bytearray(b"\0")
    return bytes(raw)


JSON_PIECES = (
    b"18446744073709551615", b"1152921504606846976", b"-1", b"1.5", b"true", b"null", b"1e400", b"NaN", b'"F64"', b'"BF16"', b"[", b"{",
    b'"', b"\\ud800", b"\xff", b"\0", b"\n", b'"emb.weight":', b"0,", b"[[", b"9" * 5000, b"model." * 50,
)  # fmt: skip
PICKLE_PIECES = (b"(", b")", b"t", b"R", b"}", b"]", b"a", b"e", b"s", b"u", b"b", b"Q", b"0", b"1", b"2", b"N", b".", b"\x93", b"\x94",
                 b"h\0", b"j\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x8b\xff\xff\xff\x7f",
                 b"\x8e" + b"\xff" * 7 + b"\x7f", b"cos\nsystem\n", b"ios\nsystem\n", b"J\xff\xff\xff\xff", b"X\xff\xff\xff\x7f",
                 b"\x8a\xff" + b"\x7f" * 255, b"I" + b"9" * 5000 + b"\n", b"\x80\x05", b"\x95" + b"\xff" * 8)  # fmt: skip
GGUF_PIECES = tuple(
    struct.pack("<Q", n) for n in (0, 1, 7, 1 << 20, 1 << 31, 1 << 40, 1 << 62, (1 << 64) - 1)
) + tuple(struct.pack("<I", n) for n in range(1, 40, 2))


def safetensors_files(folder: Path) -> Callable[[random.Random], bytes]:
    content = safetensors.numpy.save(model(), {"note": "text"})
    end = 8 + int.from_bytes(content[:8], "little")

    def make(rng: random.Random) -> bytes:
        if not rng.randrange(4):
            return spoiled(rng, content, JSON_PIECES)
        header = spoiled(rng, content[8:end], JSON_PIECES)
        return len(header).to_bytes(8, "little") + header + content[end:]

    return make


def torch_files(folder: Path) -> Callable[[random.Random], bytes]:
    arrays = model()
    storages = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    items = {}
    for key, (name, array) in enumerate(arrays.items()):
        strides = tuple(step // 4 for step in array.strides)
        items[name] = tensor_op(storage_op("FloatStorage", str(key), array.size), 0, array.shape, strides)
    whole = zip_torch(folder / "base.pth", pickle_bytes(dict_op(items)), storages).read_bytes()

    def make(rng: random.Random) -> bytes:
        if not rng.randrange(4):
            return spoiled(rng, whole, PICKLE_PIECES)
        damaged = spoiled(rng, pickle_bytes(dict_op(items)), PICKLE_PIECES)
        return zip_torch(folder / "spoiled.pth", damaged, storages).read_bytes()

    return make


def gguf_files(folder: Path) -> Callable[[random.Random], bytes]:
    from test_gguf import v7_file

    content = v7_file(folder).read_bytes()
    return lambda rng: spoiled(rng, content[:9000], GGUF_PIECES) + content[9000:]


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("files, rounds", [(safetensors_files, 100), (torch_files, 90), (gguf_files, 30)])
def test_a_spoiled_file_is_opened_or_refused_in_one_sentence_and_little_memory(
    tmp_path, files, rounds, batch
):
    if files is gguf_files:
        pytest.importorskip(
            "gguf", reason="the package gguf, which writes the file to be spoiled, is not installed"
        )
    make, rng, path, opened = files(tmp_path), random.Random(batch), tmp_path / "spoiled", 0
    tracemalloc.start()
    try:
        for _ in range(rounds):
            path.write_bytes(make(rng))
            opened += reads(path)
            path.unlink()
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert opened < rounds


def reads(path: Path) -> bool:
    """Whether the file opens; whatever it refuses with has to be an EngineError of one line."""
    try:
        checkpoint = open_checkpoint(path)
        fingerprint(checkpoint)
        for tensor in checkpoint.tensors.values():
            assert tensor.float32().shape == tensor.shape
    except EngineError as error:
        assert "\n" not in str(error) and len(str(error)) < 600, error
        return False
    return True
