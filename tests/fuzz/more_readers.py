"""Readers of what comes beside a model: LoRA files, uploaded states, tasks; and packed files of odd shapes."""

import numpy as np
from checkpoint_files import dict_op, pickle_bytes, storage_op, tensor_op, zip_torch
from models import random_model, write

import rwkv_engine
from rwkv_engine import families
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.checkpoints.lora import with_lora
from rwkv_engine.evaluation.tasks import task_of
from rwkv_engine.families.loader import Loader
from rwkv_engine.tools.state_files import layout_of, open_state

from .making import PICKLE, SMALL, file, json_file, weights, with_header
from .mutate import other_bytes


def packed4(folder):
    """As `packed`, of int4 and of shapes that fill no block."""
    source = write(folder / "m", random_model("7", vocab=259, layers=1, heads=3, head_size=8, ffn=37))
    rwkv_engine.quantize(source, folder / "p", "int4", tokenizer="bytes")
    return with_header((folder / "p").read_bytes()), file(folder, weights)


def lora(folder):
    """LoRA files and the settings beside them, merged into a small model."""
    tensors = random_model("7", vocab=256, **SMALL)
    checkpoint = open_checkpoint(write(folder / "m", tensors))
    halves = {"base_model.model.blocks.0.att.output.lora_A.weight": np.ones((4, 8), np.float32),
              "base_model.model.blocks.0.att.output.lora_B.weight": np.ones((8, 4), np.float32),
              "blocks.0.ln1.weight": np.ones(8, np.float32), "blocks.0.att.time_state": np.ones((1, 8, 8), np.float32)}  # fmt: skip
    home = folder / "lora"
    home.mkdir()
    whole, spoiled = write(home / "adapter_model.safetensors", halves).read_bytes(), with_header
    of_file, of_settings = (
        spoiled(whole),
        json_file({"lora_alpha": 8, "r": 4, "use_rslora": False, "alpha_pattern": {}}),
    )
    settings = b'{"lora_alpha": 8}'

    def make(rng):
        return (of_file(rng), settings) if rng.randrange(3) else (whole, of_settings(rng))

    def read(content):
        (home / "adapter_model.safetensors").write_bytes(content[0])
        (home / "adapter_config.json").write_bytes(content[1])
        merged = with_lora(checkpoint, home, None, True)
        config = families.config_of(merged)
        families.family_of(config).prepare(Loader(merged.tensors, config.layers, None), config)
        fingerprint(merged)

    return make, read


def upload(folder):
    """What a client may upload as a state: a state file, or a tuned time_state of PyTorch."""
    source = write(folder / "m", random_model("7", vocab=256, **SMALL))
    layout = layout_of(open_checkpoint(source))
    arrays = {"blocks.0.att.time_state": np.ones((1, 8, 8), np.float32)}
    (array,) = arrays.values()
    item = tensor_op(storage_op("FloatStorage", "0", array.size), 0, array.shape, (64, 8, 1))
    pickle = pickle_bytes(dict_op({"blocks.0.att.time_state": item}))
    whole = zip_torch(folder / "base", pickle, {"0": array.tobytes()}).read_bytes()
    flat = write(folder / "flat", arrays).read_bytes()
    of_flat = with_header(flat)

    def make(rng):
        kind = rng.randrange(3)
        if kind == 0:
            return of_flat(rng)
        if kind == 1:
            return other_bytes(rng, whole, PICKLE)
        return zip_torch(
            folder / "spoiled", other_bytes(rng, pickle, PICKLE), {"0": array.tobytes()}
        ).read_bytes()

    def read(path):
        try:
            open_state(path, layout)
        except rwkv_engine.EngineError as error:
            if not isinstance(error, rwkv_engine.StateError):
                raise TypeError(f"want a StateError: {type(error).__name__}: {error}") from None
            raise

    return make, file(folder, read)


def task(folder):
    """Lines of tasks."""
    kinds = [{"text": "Tom went to the park", "task": "a"}, {"prompt": "a", "choices": ["x", "y"], "answer": 1},
             {"prompt": "a", "answer": "b", "stop": ["\n"], "max_tokens": 5}, {"prompt": "q", "regex": "a+b", "answer": "x"}]  # fmt: skip
    makes = [json_file(kind) for kind in kinds]
    return lambda rng: b"\n".join(rng.choice(makes)(rng) for _ in range(rng.randint(1, 3))), file(
        folder, task_of
    )
