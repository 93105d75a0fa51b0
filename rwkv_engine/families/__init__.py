"""The generations of RWKV this engine runs, newest first. A new one is a file of its own and a row here."""

from collections.abc import Mapping

from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.errors import UnknownLayout, about
from rwkv_engine.families import v4, v5, v6, v7
from rwkv_engine.families.family import Family
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor

FAMILIES: tuple[Family, ...] = (v7.FAMILY, v6.FAMILY, v5.FAMILY, v4.FAMILY)


def detect(tensors: Mapping[str, Tensor]) -> Family:
    """The family whose tensors these are (BlinkDL's names), by names and shapes alone; UnknownLayout if
    none's.
    """
    for family in FAMILIES:
        if family.marks(tensors):
            return family
    seen = ", ".join(sorted(tensors)[:3])
    raise UnknownLayout(
        f"the tensors are of no RWKV this engine knows (it runs 4 to 7); the first are {seen or 'none'}"
    )


def config_of(checkpoint: Checkpoint) -> ModelConfig:
    """A checkpoint's family and sizes, by names and shapes alone.

    Raises CheckpointError, which names the file.
    """
    with about(checkpoint.path):
        return detect(checkpoint.tensors).infer(checkpoint.tensors)


def family_of(config: ModelConfig) -> Family:
    """The family that a config names."""
    return next(family for family in FAMILIES if family.name == config.family)
