"""What readers are made of: files that are damaged, and what reads a model."""

import json
import struct

import rwkv_engine
from rwkv_engine import families
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.families.loader import Loader

from .mutate import other_bytes, other_json, text_of

PICKLE = (b"(", b")", b"t", b"R", b"}", b"]", b"a", b"e", b"s", b"u", b"b", b"Q", b"0", b"1", b"2", b"N", b".", b"\x93", b"\x94", b"h\0",
          b"j\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x8b\xff\xff\xff\x7f", b"cos\nsystem\n",
          b"J\xff\xff\xff\xff", b"X\xff\xff\xff\x7f", b"I" + b"9" * 5000 + b"\n", b"\x80\x05", b"\x95" + b"\xff" * 8)  # fmt: skip
BINARY = tuple(struct.pack("<Q", n) for n in (0, 1, 7, 1 << 20, 1 << 31, 1 << 40, 1 << 62, (1 << 64) - 1))
SMALL = {"layers": 1, "heads": 1}


def file(folder, read, name="case"):
    """Reads bytes by writing them to a file first."""
    path = folder / name

    def reads(content):
        path.write_bytes(content)
        try:
            read(path)
        finally:
            path.unlink(missing_ok=True)

    return reads


def with_header(content):
    """make(rng) of a file that begins with a JSON header, as safetensors does: mostly the header is changed
    as JSON.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])

    def make(rng):
        if not rng.randrange(3):
            return other_bytes(rng, content, BINARY)
        changed = other_json(rng, header)
        if "__metadata__" in header and not rng.randrange(2):
            changed = {**header, "__metadata__": notes(rng, header["__metadata__"])}
        text = text_of(changed).encode()
        text = other_bytes(rng, text) if not rng.randrange(4) else text
        return len(text).to_bytes(8, "little") + text + content[end:]

    return make


def notes(rng, notes):
    """The metadata changed; where a note is JSON itself, inside of it."""
    key = rng.choice(list(notes))
    try:
        inner = json.loads(notes[key])
    except ValueError:
        return other_json(rng, notes)
    return {**notes, key: text_of(other_json(rng, inner))}


def weights(path):
    """All that loading does before anything is compiled, and every tensor read."""
    checkpoint = open_checkpoint(path)
    config = families.config_of(checkpoint)
    families.family_of(config).prepare(Loader(checkpoint.tensors, config.layers, None), config)
    fingerprint(checkpoint)
    rwkv_engine.describe(path, tokenizer="bytes")


def json_file(value):
    """make(rng) of a JSON file."""
    text = json.dumps(value)

    def make(rng):
        if not rng.randrange(3):
            return other_bytes(rng, text.encode(), (b"[" * 900, b"\xef\xbb\xbf", b"1e999"))
        return text_of(other_json(rng, value)).encode()

    return make
