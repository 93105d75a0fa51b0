"""Model files for the tests of `checkpoints`, made from nothing: canonical tensors, safetensors bytes,
torch's zip.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

L, C, H, N, F, V, R = 3, 24, 3, 8, 40, 32, 4

STORAGES = {
    np.dtype("<f4"): "FloatStorage",
    np.dtype("<f2"): "HalfStorage",
    np.dtype("<u2"): "BFloat16Storage",
}


def shapes(version: str) -> dict[str, tuple[int, ...]]:
    """Canonical names and shapes of a tiny model of the version: "4", "5.0", "5.1", "5.2", "6" or "7"."""
    table: dict[str, tuple[int, ...]] = {
        "emb.weight": (V, C),
        "head.weight": (V, C),
        "ln_out.weight": (C,),
        "ln_out.bias": (C,),
    }
    for block in range(L):
        norms = ["ln1", "ln2"] + ["ln0"] * (block == 0) + ["att.ln_x"] * (version != "4")
        tails = {f"{norm}.{part}": (C,) for norm in norms for part in ("weight", "bias")}
        tails |= {f"att.{part}.weight": (C, C) for part in ("receptance", "key", "value", "output")}
        tails |= {"ffn.key.weight": (F, C), "ffn.value.weight": (C, F)} | _special(version)
        if version != "7":
            tails["ffn.receptance.weight"] = (C, C)
        table |= {f"blocks.{block}.{tail}": shape for tail, shape in tails.items()}
    return table


def _special(version: str) -> dict[str, tuple[int, ...]]:
    if version == "7":
        vectors = {f"att.x_{part}": (1, 1, C) for part in "rwkvag"} | {
            f"att.{part}0": (1, 1, C) for part in "wav"
        }
        pairs = {f"att.{part}1": (C, R + n) for n, part in enumerate("wavg")}
        pairs |= {f"att.{part}2": (R + n, C) for n, part in enumerate("wavg")}
        return (
            vectors
            | pairs
            | {"att.k_k": (1, 1, C), "att.k_a": (1, 1, C), "att.r_k": (H, N), "ffn.x_k": (1, 1, C)}
        )
    if version == "6":
        vectors = {f"att.time_maa_{part}": (1, 1, C) for part in "xwkvrg"} | {
            f"ffn.time_maa_{part}": (1, 1, C) for part in "kr"
        }
        pairs = {
            "att.time_maa_w1": (C, 5 * R),
            "att.time_maa_w2": (5, R, C),
            "att.time_decay_w1": (C, R),
            "att.time_decay_w2": (R, C),
        }
        return (
            vectors
            | pairs
            | {"att.time_decay": (1, 1, C), "att.time_faaaa": (H, N), "att.gate.weight": (C, C)}
        )
    mixes = {f"att.time_mix_{part}": (1, 1, C) for part in "kvr"} | {
        f"ffn.time_mix_{part}": (1, 1, C) for part in "kr"
    }
    decay = {"4": (C,), "5.0": (H,), "5.1": (H,), "5.2": (H, N)}[version]
    first = "att.time_first" if version in ("4", "5.0") else "att.time_faaaa"
    gate = {"att.gate.weight": (C, C), "att.time_mix_g": (1, 1, C)} if version in ("5.1", "5.2") else {}
    return mixes | gate | {"att.time_decay": decay, first: decay}


def canonical(version: str, seed: int = 1) -> dict[str, np.ndarray]:
    """Random tensors of a tiny model, float32, under BlinkDL's names."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes(version).items()}


def safetensors_bytes(header: Mapping[str, object] | str | bytes, data: bytes = b"") -> bytes:
    """A file from a header, which may lie, and data."""
    text = json.dumps(header) if isinstance(header, Mapping) else header
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(8, "little") + raw + data


def text_op(text: str) -> bytes:
    """BINUNICODE."""
    raw = text.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def int_op(number: int) -> bytes:
    """LONG1, for any size."""
    raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tuple_op(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def global_op(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def storage_op(kind: str, key: str, count: int) -> bytes:
    """A storage, as torch refers to it."""
    return (
        tuple_op(text_op("storage"), global_op("torch", kind), text_op(key), text_op("cpu"), int_op(count))
        + b"Q"
    )


def tensor_op(storage: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """A call of torch._utils._rebuild_tensor_v2."""
    sizes, steps = (tuple_op(*(int_op(n) for n in numbers)) for numbers in (shape, strides))
    hooks = global_op("collections", "OrderedDict") + b")R"
    return (
        global_op("torch._utils", "_rebuild_tensor_v2")
        + tuple_op(storage, int_op(offset), sizes, steps, b"\x89", hooks)
        + b"R"
    )


def dict_op(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text_op(name) + value for name, value in items.items()) + b"u"


def pickle_bytes(content: bytes) -> bytes:
    """Protocol 2."""
    return b"\x80\x02" + content + b"."


def zip_torch(
    path: Path,
    pickle: bytes,
    storages: Mapping[str, bytes],
    root: str = "archive",
    method: int = zipfile.ZIP_STORED,
) -> Path:
    """An archive as torch.save lays it out, data at multiples of 64 bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{root}/data.pkl", pickle)
        for key, raw in storages.items():
            info = zipfile.ZipInfo(f"{root}/data/{key}")
            info.compress_type = method
            padding = -(archive.start_dir + 30 + len(info.filename) + 4) % 64
            info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            archive.writestr(info, raw)
        archive.writestr(f"{root}/version", b"3\n")
    return path


def write_torch(path: Path, tensors: Mapping[str, np.ndarray], wrapper: str = "") -> Path:
    """A .pth of C-ordered float32, float16 or (as uint16) BF16 arrays; `wrapper` nests them in a dict under
    that name.
    """
    items = {}
    for key, (name, array) in enumerate(tensors.items()):
        strides = tuple(step // array.itemsize for step in array.strides)
        items[name] = tensor_op(
            storage_op(STORAGES[array.dtype], str(key), array.size), 0, array.shape, strides
        )
    content = dict_op(items)
    outer = dict_op({wrapper: content, "epoch": int_op(7)}) if wrapper else content
    return zip_torch(
        path, pickle_bytes(outer), {str(key): array.tobytes() for key, array in enumerate(tensors.values())}
    )
