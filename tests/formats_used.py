"""Tensors in the element type of a float format, for tests."""

import models
import numpy as np

from rwkv_engine.numbers.tensor import Tensor


def stored(bits, dtype):
    """A tensor that is stored as `bits`."""
    return Tensor("test", bits.shape, dtype, lambda: bits)


def tensor(values, name):
    """A tensor of `values`, rounded to what the format called `name` stores."""
    values = np.asarray(values, np.float32)
    if name == "bf16":
        return stored(models.bf16_bits(values), "BF16")
    return stored(values if name == "f32" else values.astype(np.float16), name.upper())
