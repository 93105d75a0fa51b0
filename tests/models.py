"""Random models of every version in BlinkDL's names and shapes, with numbers for which every tensor matters."""

import json
import struct

import numpy as np

BYTES = {"F32": "<f4", "F16": "<f2"}


def random_model(
    version,
    seed=0,
    layers=2,
    heads=2,
    head_size=8,
    ffn=None,
    vocab=64,
    ranks=(5, 6, 3, 7),
    layer0_residual="absent",
):
    """name -> float32 array. ranks: low-rank widths (v7: w, a, v, g; v6: mixing, decay). layer0_residual:
    v7's unused tensors of layer 0, "absent", "present" (as in other layers) or "dummy" (of another shape).
    """
    make = _Maker(
        version, seed, layers, heads, head_size, ffn or 4 * heads * head_size, vocab, ranks, layer0_residual
    )
    return make.model()


class _Maker:
    def __init__(self, version, seed, layers, heads, head_size, ffn, vocab, ranks, layer0_residual):
        self.version, self.layers, self.heads, self.size, self.f, self.vocab = (
            version,
            layers,
            heads,
            head_size,
            ffn,
            vocab,
        )
        self.c, self.ranks, self.layer0_residual = heads * head_size, ranks, layer0_residual
        self.rng = np.random.default_rng(seed)
        self.z = {}

    def normal(self, name, *shape, std=1.0, mean=0.0):
        self.z[name] = (self.rng.standard_normal(shape) * std + mean).astype(np.float32)

    def uniform(self, name, *shape, low=0.0, high=1.0):
        self.z[name] = self.rng.uniform(low, high, shape).astype(np.float32)

    def matrix(self, name, rows, cols):
        self.normal(name, rows, cols, std=cols**-0.5)

    def norm(self, name, width):
        self.uniform(name + ".weight", width, low=0.5, high=1.5)
        self.normal(name + ".bias", width, std=0.2)

    def model(self):
        self.normal("emb.weight", self.vocab, self.c)
        self.norm("blocks.0.ln0", self.c)
        for i in range(self.layers):
            self.norm(f"blocks.{i}.ln1", self.c)
            self.norm(f"blocks.{i}.ln2", self.c)
            for name in ("receptance", "key", "value", "output"):
                self.matrix(f"blocks.{i}.att.{name}.weight", self.c, self.c)
            if self.version != "4":
                self.norm(f"blocks.{i}.att.ln_x", self.c)
            {"4": self.v4, "5": self.v5, "6": self.v6, "7": self.v7}[self.version[0]](f"blocks.{i}.", i)
            self.matrix(f"blocks.{i}.ffn.key.weight", self.f, self.c)
            self.matrix(f"blocks.{i}.ffn.value.weight", self.c, self.f)
            if self.version[0] != "7":
                self.matrix(f"blocks.{i}.ffn.receptance.weight", self.c, self.c)
        self.norm("ln_out", self.c)
        self.matrix("head.weight", self.vocab, self.c)
        return self.z

    def v4(self, p, i):
        for letter in "kvr":
            self.uniform(f"{p}att.time_mix_{letter}", 1, 1, self.c)
        for letter in "kr":
            self.uniform(f"{p}ffn.time_mix_{letter}", 1, 1, self.c)
        self.uniform(p + "att.time_decay", self.c, low=-5, high=1)
        self.normal(p + "att.time_first", self.c)

    def v5(self, p, i):
        gated = self.version != "5.0"
        per_head = (
            (self.heads, self.size)
            if self.version == "5.2"
            else (self.heads, 1)
            if self.version == "5.1"
            else (self.heads,)
        )
        for letter in "kvrg" if gated else "kvr":
            self.uniform(f"{p}att.time_mix_{letter}", 1, 1, self.c)
        for letter in "kr":
            self.uniform(f"{p}ffn.time_mix_{letter}", 1, 1, self.c)
        self.uniform(p + "att.time_decay", *per_head, low=-5, high=1)
        self.normal(p + ("att.time_faaaa" if gated else "att.time_first"), *per_head, std=0.5)
        if gated:
            self.matrix(p + "att.gate.weight", self.c, self.c)

    def v6(self, p, i):
        mixing, decay = self.ranks[:2]
        for letter in "xwkvrg":
            self.uniform(f"{p}att.time_maa_{letter}", 1, 1, self.c)
        for letter in "kr":
            self.uniform(f"{p}ffn.time_maa_{letter}", 1, 1, self.c)
        self.normal(p + "att.time_maa_w1", self.c, 5 * mixing, std=self.c**-0.5)
        self.normal(p + "att.time_maa_w2", 5, mixing, self.c, std=0.3)
        self.uniform(p + "att.time_decay", 1, 1, self.c, low=-5, high=0)
        self.normal(p + "att.time_decay_w1", self.c, decay, std=self.c**-0.5)
        self.normal(p + "att.time_decay_w2", decay, self.c, std=0.3)
        self.normal(p + "att.time_faaaa", self.heads, self.size, std=0.5)
        self.matrix(p + "att.gate.weight", self.c, self.c)

    def v7(self, p, i):
        for letter in "rwkvag":
            self.uniform(f"{p}att.x_{letter}", 1, 1, self.c)
        for letter, rank in zip("wavg", self.ranks, strict=True):
            if letter == "v" and i == 0 and self.layer0_residual != "present":
                if self.layer0_residual == "dummy":
                    self.normal(p + "att.v0", 1)
                continue
            if letter != "g":
                self.normal(f"{p}att.{letter}0", 1, 1, self.c)
            self.normal(f"{p}att.{letter}1", self.c, rank, std=self.c**-0.5)
            self.normal(f"{p}att.{letter}2", rank, self.c, std=rank**-0.5)
        self.uniform(p + "att.k_k", 1, 1, self.c, low=0.5, high=1.5)
        self.uniform(p + "att.k_a", 1, 1, self.c, low=0.5, high=1.5)
        self.normal(p + "att.r_k", self.heads, self.size, std=0.3)
        self.uniform(p + "ffn.x_k", 1, 1, self.c)
        if self.version == "7a":
            self.deep_embed(p + "ffn.")

    def deep_embed(self, p, rank=4):
        self.normal(p + "s_emb.weight", self.vocab, rank * rank, std=0.5)
        self.normal(p + "s_emb_x.weight", rank * rank, self.c, std=0.5 * self.c**-0.5)
        self.normal(p + "s1", self.c, rank, std=self.c**-0.5)
        self.normal(p + "s2", rank, self.f, std=rank**-0.5)
        self.normal(p + "s0", 1, 1, self.f, mean=1.0, std=0.3)


def bf16_bits(array):
    """float32 -> BF16 bits, to nearest even."""
    u = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def rounded(tensors, dtype):
    """The float32 numbers that are left of tensors stored as `dtype`."""
    if dtype == "BF16":
        return {
            name: (bf16_bits(array).astype(np.uint32) << 16).view(np.float32)
            for name, array in tensors.items()
        }
    return {name: array.astype(BYTES[dtype]).astype(np.float32) for name, array in tensors.items()}


def write(path, tensors, dtype="F32", metadata=None):
    """Write tensors as safetensors in plain numpy; returns the path."""
    header, blobs, offset = {"__metadata__": metadata} if metadata else {}, [], 0
    for name, array in tensors.items():
        blob = (bf16_bits(array) if dtype == "BF16" else array.astype(BYTES[dtype])).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.writelines(blobs)
    return path
