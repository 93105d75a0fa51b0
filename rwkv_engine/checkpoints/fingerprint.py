"""Hashes of a checkpoint's numbers, independent of container and naming: a fast sample, and an exact one."""

import contextlib
import functools
import hashlib
import os
import re
import time
from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Checkpoint, Merge, identity
from rwkv_engine.checkpoints.names import is_time_state, is_unread
from rwkv_engine.numbers.bf16 import bf16_to_float32
from rwkv_engine.numbers.tensor import Tensor, one_at_a_time
from rwkv_engine.system.files import write_whole
from rwkv_engine.system.folders import cache_folder
from rwkv_engine.system.pages import give_back, mapped_file

VERSION = 2
#: a tensor of at most this many values is hashed completely
WHOLE = 4096
#: larger ones: minimum number of runs, values per run to add one, maximum number of runs, values in a run
LEAST, SHARE, MOST, RUN = 8, 1 << 18, 1024, 8
#: seconds in which a second change may not alter a file's times
UNSETTLED = 0.1


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 (64 hexadecimal digits) that identifies the model; a state stores it to recognise its model.

    Hashed per tensor, in order of canonical names: name, shape without axes of length 1, element type, and
    values in C order as little-endian float32. Up to 4,096 values: all. More: runs of 8 values at scattered
    places, one in each of 8 to 1,024 equal parts, including the first and the last run. Any other fine-tuning
    changes it, and so does a contiguous change of a quarter of a tensor; a change of a few values of a large
    matrix may not (use `digests`). Container and layout do not matter. Not hashed: metadata, tokenizer,
    `time_state`, and v0, v1, v2 of block 0. It reads little: 4,000 runs and the small tensors of a 0.4B
    model. A packed file has the fingerprint of its source: it is the same model in another format, and states
    work with both.
    """
    if checkpoint.packing:
        return checkpoint.packing.fingerprint
    if checkpoint.merge:
        return _mixed(fingerprint(checkpoint.merge.base), checkpoint.merge)
    digest = hashlib.sha256(b"rwkv_engine fingerprint %d\n" % VERSION)
    for name in sorted(checkpoint.tensors):
        if not (is_unread(name) or is_time_state(name)):
            digest.update(_about(name, checkpoint.tensors[name]))
            digest.update(_sample(checkpoint.tensors[name]).astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def digests(checkpoint: Checkpoint) -> tuple[str, str]:
    """(`fingerprint`, SHA-256 of all numbers but `time_state`): any changed number changes the second one.

    It reads the whole checkpoint, so the result is cached in the user's cache folder, keyed by the files'
    device, inode, size, and change times.
    """
    if checkpoint.merge:
        first, second = digests(checkpoint.merge.base)
        return _mixed(first, checkpoint.merge), _mixed(second, checkpoint.merge)
    memory = None
    if checkpoint.identities:
        known = hashlib.sha256("\n".join(checkpoint.identities).encode()).hexdigest()
        with contextlib.suppress(OSError):  # no home folder, or not cached yet
            memory = cache_folder() / "digests" / f"{known}-{VERSION}"
            found = re.fullmatch("([0-9a-f]{64}) ([0-9a-f]{64})", memory.read_text("ascii", "replace"))
            if found:
                return found[1], found[2]
    digest = hashlib.sha256(b"rwkv_engine exact %d\n" % VERSION)
    tensors = one_at_a_time(checkpoint.tensors, stay=False)
    for name in sorted(tensors):
        if not is_time_state(name):
            digest.update(_about(name, tensors[name]))
            _take(digest, tensors[name])
    names = fingerprint(checkpoint), digest.hexdigest()
    if memory is not None:
        _remember(memory, " ".join(names), checkpoint)
    return names


def _mixed(base: str, merge: Merge) -> str:
    """The digest of a model with digest `base` after a merge; it does not depend on the weight format."""
    return hashlib.sha256(f"{base} {merge.recipe}".encode()).hexdigest()


def _remember(memory: Path, text: str, checkpoint: Checkpoint) -> None:
    """Cache the result, if the files did not change while they were read or just before."""
    with contextlib.suppress(OSError):
        now = tuple(identity(path) for path in checkpoint.paths)
        changed = max(max(about.st_mtime, about.st_ctime) for about in map(os.stat, checkpoint.paths))
        if now == checkpoint.identities and time.time() - changed > UNSETTLED:
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_whole(memory, [text.encode()], sync=False)


def _about(name: str, tensor: Tensor) -> bytes:
    return f"{name} {[length for length in tensor.shape if length != 1]} {tensor.dtype}\n".encode()


def _take(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Hash all numbers: those that a GGUF has quantized as its blocks, not as floats, which take more memory."""
    if tensor.blocks is None:
        array = tensor.bits()
    else:
        blocks = tensor.blocks()
        array = blocks.data
        digest.update(f"{blocks.kind.name} {blocks.scale}\n".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _sample(tensor: Tensor) -> np.ndarray:
    """Some values as float32; reads little more of the file than these."""
    if tensor.blocks is not None:
        blocks = tensor.blocks()
        return blocks.at(_places(blocks.count))
    bits = tensor.bits()
    read = bits.reshape(-1) if bits.size <= WHOLE else _read(bits)
    taken = bits[np.unravel_index(_places(bits.size), bits.shape)] if read is None else read
    if read is None:
        give_back(bits)
    return bf16_to_float32(taken) if tensor.dtype == "BF16" else taken.astype(np.float32)


def _read(bits: np.ndarray) -> np.ndarray | None:
    """The values at `_places` of a contiguous view of a mapped file, read without touching the map.

    Touching it would load 16 pages per run, which count as memory of this process.
    Returns None if it is not such a view, or the system has no pread.
    """
    file = mapped_file(bits)
    if file is None or not bits.flags.c_contiguous or not hasattr(os, "pread"):
        return None
    read, handle, start, size = os.pread, file.descriptor, file.place(bits), bits.itemsize
    runs = _runs(bits.size)
    content = b"".join([read(handle, RUN * size, start + size * first) for first in runs])
    return np.frombuffer(content, bits.dtype) if len(content) == RUN * size * len(runs) else None


@functools.lru_cache(maxsize=64)
def _runs(size: int) -> list[int]:
    """Starts of runs of RUN values in a tensor of `size`: one per equal part, including first and last."""
    count = min(max(size // SHARE, LEAST), MOST)
    width = size // count
    number = np.arange(count, dtype=np.uint64)
    lot = (number * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)  # golden ratio: evenly spread
    drawn = (number * np.uint64(width) + lot % np.uint64(width - RUN + 1)).tolist()
    return [0, *drawn[1:-1], size - RUN]


@functools.lru_cache(maxsize=64)
def _places(size: int) -> np.ndarray:
    """Indices (C order) of the sampled values of a tensor of `size`."""
    if size <= WHOLE:
        return np.arange(size)
    return (np.array(_runs(size))[:, None] + np.arange(RUN)).reshape(-1)
