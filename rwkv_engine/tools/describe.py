"""`describe`: what a checkpoint is, from its headers."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import matrices
from rwkv_engine.formats import format_for
from rwkv_engine.kernels.int8_levels import chosen
from rwkv_engine.running import memory
from rwkv_engine.running.memory import Estimate
from rwkv_engine.system import cpu
from rwkv_engine.system.process import COMPILING
from rwkv_engine.text import find_tokenizer

#: bytes of one number of a state
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint is.

    path          of the file or folder.
    family        "RWKV-7" ...
    layout        whose names the tensors have.
    container     of the file: "safetensors", "gguf", "torch zip".
    layers, width, heads, head_size, ffn, vocabulary   sizes: L, C, H, N, F, V.
    parameters    numbers in all tensors together.
    types         element types of the tensors: ("BF16",), ("F32", "Q4_0") ...
    matrices      those of the matrices.
    runs_as       the weight format that they run in, if no other is asked for.
    weight_bytes  of all tensors in the file.
    state_bytes   of one conversation.
    tokenizer     its name.
    processor     of this machine: its name, cores, and the kernels for 8-bit weights that run here.
    compiling     bytes more while a program is compiled, once for each kind of model.
    memory        what the model takes when it is loaded, for each weight format that it can be loaded in.
    """

    path: str
    family: str
    layout: str
    container: str
    layers: int
    width: int
    heads: int
    head_size: int
    ffn: int
    vocabulary: int
    parameters: int
    types: tuple[str, ...]
    matrices: tuple[str, ...]
    runs_as: str
    weight_bytes: int
    state_bytes: int
    tokenizer: str
    processor: str
    compiling: int
    memory: Mapping[str, Estimate]


def describe(checkpoint: Checkpoint, tokenizer: str | Path | None = None) -> Description:
    """What a checkpoint is. Only headers are read.

    tokenizer  as for `load`.
    Raises     UnknownLayout, MissingTensor or WrongShape if it is no model of a known family, OptionError.
    """
    tensors = checkpoint.tensors
    config = families.config_of(checkpoint)
    family = families.family_of(config)
    stored = matrices(tensors)
    inside = checkpoint.packing.tokenizer if checkpoint.packing else None
    return Description(
        path=str(checkpoint.path),
        family=f"RWKV-{config.version}",
        layout=checkpoint.layout,
        container=checkpoint.container,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        head_size=config.head_size,
        ffn=config.ffn,
        vocabulary=config.vocab,
        parameters=sum(prod(tensor.shape) for tensor in tensors.values()),
        types=tuple(sorted({tensor.type for tensor in tensors.values()})),
        matrices=tuple(sorted({tensor.type for tensor in stored})),
        runs_as=format_for(stored, None).name,
        weight_bytes=sum(tensor.nbytes for tensor in tensors.values()),
        state_bytes=sum(prod(plane.shape) * _FLOAT for plane in family.planes(config)),
        tokenizer=find_tokenizer(config.vocab, checkpoint.files, tokenizer, inside).name,
        processor=f"{cpu.name()}, {cpu.physical_cores()} cores, integer kernels: {chosen()}",
        compiling=COMPILING,
        memory=memory.estimates(checkpoint),
    )
