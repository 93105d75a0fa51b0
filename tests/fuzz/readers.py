"""The readers: what each is given when nothing is wrong, how that is changed, and what reads it.

A reader is a function of a folder that gives (make, read): make(rng) -> a damaged input, read(it). FOUND is
what was once wrong.
"""

import json
import shutil
import sqlite3
import struct

import numpy as np
from checkpoint_files import canonical, dict_op, pickle_bytes, storage_op, tensor_op, zip_torch
from models import random_model, write

import rwkv_engine
from rwkv_engine import state as states
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.tools.state_files import layout_of, read_state_file

from .making import BINARY, PICKLE, SMALL, file, json_file, weights, with_header
from .more_readers import lora, packed4, task, upload
from .mutate import other_bytes
from .text_readers import regex, schema, template, tokenizer


def safetensors(folder):
    content = write(folder / "m", random_model("7", vocab=256, **SMALL), metadata={"a": "text"}).read_bytes()
    return with_header(content), file(folder, weights)


def v7a(folder):
    content = write(folder / "m", random_model("7a", vocab=256, **SMALL)).read_bytes()
    return with_header(content), file(folder, weights)


def packed(folder):
    source = write(folder / "m", random_model("7", vocab=256, **SMALL))
    rwkv_engine.quantize(source, folder / "p", tokenizer="bytes")
    return with_header((folder / "p").read_bytes()), file(folder, weights)


def torch(folder):
    arrays = canonical("7")
    storages = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    items = {}
    for key, (name, array) in enumerate(arrays.items()):
        strides = tuple(step // 4 for step in array.strides)
        items[name] = tensor_op(storage_op("FloatStorage", str(key), array.size), 0, array.shape, strides)
    pickle = pickle_bytes(dict_op(items))
    whole = zip_torch(folder / "base", pickle, storages).read_bytes()
    few = {name: storages[name] for name in list(storages)[:3]}

    def make(rng):
        if not rng.randrange(3):
            return other_bytes(rng, whole[-20_000:] if rng.randrange(2) else whole, PICKLE)
        return zip_torch(folder / "spoiled", other_bytes(rng, pickle, PICKLE), few).read_bytes()

    return make, file(folder, weights)


def gguf(folder):
    from test_gguf import v7_file

    content = v7_file(folder).read_bytes()
    pieces = (*BINARY, *(struct.pack("<I", n) for n in range(1, 40, 2)))
    return lambda rng: other_bytes(rng, content[:9000], pieces) + content[9000:], file(folder, weights)


def index(folder):
    write(folder / "a.safetensors", random_model("7", vocab=256, **SMALL))
    names = list(open_checkpoint(folder / "a.safetensors").tensors)
    table = {"metadata": {}, "weight_map": {name: "a.safetensors" for name in names}}
    read = file(folder, lambda path: weights(folder), "model.safetensors.index.json")
    return json_file(table), read


def state(folder):
    source = write(folder / "m", random_model("7", vocab=256, **SMALL))
    layout = layout_of(open_checkpoint(source))
    own = states.State.fresh(layout)
    own.save(folder / "s")

    def read(path):
        read_state_file(path)
        states.load(path, layout)

    return with_header((folder / "s").read_bytes()), file(folder, read)


def prefix(folder):
    source = write(folder / "m", random_model("7", vocab=256, **SMALL))
    own = states.State.fresh(layout_of(open_checkpoint(source)))
    own.save(folder / "s")
    cache = rwkv_engine.PrefixCache(folder / "cache")
    (folder / "cache").mkdir()
    read = file(folder / "cache", lambda path: cache.take("case", 0, own.fork()), "case.safetensors")
    return with_header((folder / "s").read_bytes()), read


def store(folder):
    from rwkv_engine.chat import Store

    with_two = Store(folder / "base")
    first, second = (rwkv_engine.Turn("Hello", "World", "", None, "off", (1, 2), "end", uid) for uid in "ab")
    for name in ("one", "two"):
        with_two.add(name, "f" * 64, {"model": "x"}, [first] if name == "one" else [second])
    with_two.close()
    path = next((folder / "base").glob("*.sqlite*"))
    (folder / "t").mkdir()
    whole = path.read_bytes()

    def make(rng):
        if rng.randrange(2):
            return other_bytes(rng, whole, BINARY, 8)
        changed = folder / "t" / "x"
        changed.write_bytes(whole)
        with sqlite3.connect(changed) as base:
            tables = [row[0] for row in base.execute("select name from sqlite_master where type = 'table'")]
            table = rng.choice(tables)
            columns = [row[1] for row in base.execute(f"pragma table_info({table})")]
            value = rng.choice((None, -1, 1 << 62, 0.5, "x", "²", "{}", "[" * 900, b"\xff", "\0", "NaN"))
            base.execute("pragma writable_schema = on" if not rng.randrange(9) else "select 1")
            try:
                base.execute(f"update {table} set {rng.choice(columns)} = ?", (value,))
            except sqlite3.Error:
                pass
        base.close()
        return changed.read_bytes()

    def read(content):
        shutil.rmtree(folder / "s", ignore_errors=True)
        (folder / "s").mkdir()
        (folder / "s" / path.name).write_bytes(content)
        opened = Store(folder / "s")
        try:
            for info in opened.infos():
                opened.turns(info)
            opened.find("one")
        finally:
            opened.close()

    return make, read


def registry(folder):
    import os

    from rwkv_engine.library import registry as records

    os.environ["XDG_DATA_HOME"] = str(folder)
    place = records.make_folder(records.models_folder())
    whole = {"version": records.VERSION, "name": "m", "family": "RWKV-7", "format": "F32", "bytes": 5, "path": "data/m-0/m.safetensors",
             "source": "a/b:c", "revision": "x", "digest": "d", "fingerprint": "f"}  # fmt: skip

    def read(content):
        (place / "m.json").write_bytes(content)
        records.names()
        records.remove("m")
        (place / "m.json").write_bytes(content)
        records.resolve(records.record("m").name)

    return json_file(whole), read


READERS = {
    one.__name__: one
    for one in (safetensors, v7a, packed, packed4, lora, upload, task, torch, gguf, index, state, prefix, store, registry, tokenizer, template, schema, regex)
}  # fmt: skip
#: what ended in a crash, a hang or a traceback once
FOUND = {
    "schema": [
        '{"type": "integer", "minimum": -1e308, "maximum": -1e308}',
        '{"properties":{"a":' * 900 + "{}" + "}}" * 900,
        '{"type": "number", "minimum": "' + "\u00e9" * 60 + '"}',  # a panic: cut inside of a letter
        '{"type": "object", "required": "' + "\u20ac" * 60 + '"}',
        '{"type": "number", "multipleOf": 2147483648}',
        '{"type": "integer", "allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}',
    ],
    "template": ["{% set True = 1 %}", "{% macro a(a, a) %}{% endmacro %}", "{{ 'a' * 10**9 }}", "{{ message['x'] }}" * 3],
    "registry": [
        b'{"version": 1, "name": "m", "family": ' + b"[" * 900 + b"]" * 900 + b', "format": "F32", "bytes": 5, '
        b'"path": "data/m-0/m", "source": "a/b:c", "revision": "x", "digest": "d", "fingerprint": "f"}',
        json.dumps({"version": 1, "name": "m", "path": "data"}).encode(), b"[]", b"\xff"],
    "regex": ["\ud800", "(a{1000}){1000}"],
    "tokenizer": ['{"padding": {"strategy": {"Fixed": 1099511627776}}}'],
    "task": [b"[" * 100_000, b'{"prompt": "q", "regex": "[[a]"}', b'{"prompt": "q", "answer": "x", "stop": "' + b"x" * 9000 + b'"}'],
    "state": [np.zeros(9, np.uint8).tobytes()],
}  # fmt: skip
