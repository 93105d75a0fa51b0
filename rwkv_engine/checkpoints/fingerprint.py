"""`fingerprint`: a short name for the numbers in a checkpoint, the same in whatever container and naming they come."""

import hashlib
from math import prod

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Checkpoint
from rwkv_engine.checkpoints.gguf_file import Quantized
from rwkv_engine.checkpoints.names import is_time_state, is_unread
from rwkv_engine.numbers.bf16 import bf16_to_float32
from rwkv_engine.numbers.tensor import Tensor

SAMPLE = 1024  #: values taken of each tensor, 4096 bytes as float32


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256, as 64 hexadecimal digits, of what tells this model from others.

        Covered, in order of the canonical names: name, shape without axes of length 1, element type, and the first 1,024
        values in C order as little-endian float32. So the same elements in another container or layout give the same
        fingerprint; another model, another fine-tuning or another precision gives another one. Not covered: metadata,
        tokenizer, `time_state`, and v0, v1, v2 of block 0. It reads about 4 KiB a tensor. A packed file has its source's fingerprint: the
    same model in another format, whose states are of use to both.
    """
    if checkpoint.packing:
        return checkpoint.packing.fingerprint
    digest = hashlib.sha256(b"rwkv_engine fingerprint 1\n")
    for name in sorted(checkpoint.tensors):
        if is_unread(name) or is_time_state(name):
            continue
        tensor = checkpoint.tensors[name]
        lengths = [length for length in tensor.shape if length != 1]
        digest.update(f"{name} {lengths} {tensor.dtype}\n".encode())
        digest.update(_sample(tensor).astype("<f4").tobytes())
    return digest.hexdigest()


def _sample(tensor: Tensor) -> np.ndarray:
    """The first SAMPLE values, float32, touching no more of the file than their rows."""
    rows = -(-SAMPLE // prod(tensor.shape[1:]))
    bits = (
        tensor.bits.first(rows) if isinstance(tensor.bits, Quantized) else np.atleast_1d(tensor.bits())[:rows]
    )
    bits = bits.reshape(-1)[:SAMPLE]
    return bf16_to_float32(bits) if tensor.dtype == "BF16" else bits.astype(np.float32)
