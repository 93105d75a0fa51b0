"""The RWKV generations this engine runs, newest first. A new one is one file and one row here."""

from collections.abc import Mapping

from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import ENDS, is_time_state, is_unread, layer_of
from rwkv_engine.errors import UnknownLayout, about, shown
from rwkv_engine.families import v4, v5, v6, v7, v7a
from rwkv_engine.families.family import Family
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor

FAMILIES: tuple[Family, ...] = (v7a.FAMILY, v7.FAMILY, v6.FAMILY, v5.FAMILY, v4.FAMILY)


def detect(tensors: Mapping[str, Tensor]) -> Family:
    """The family of these tensors, from their (BlinkDL) names and shapes; UnknownLayout if none fits."""
    for family in FAMILIES:
        if family.marks(tensors):
            return family
    seen = ", ".join(sorted(tensors)[:3])
    raise UnknownLayout(
        f"the tensors are of no RWKV this engine knows (it runs 4 to 7); the first are {seen or 'none'}"
    )


def config_of(checkpoint: Checkpoint) -> ModelConfig:
    """A checkpoint's family and sizes, from names and shapes; raises CheckpointError with the file's name."""
    with about(checkpoint.path):
        family = detect(checkpoint.tensors)
        config = family.infer(checkpoint.tensors)
        _refuse_others(family, config, checkpoint.tensors)
        return config


def _refuse_others(family: Family, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raise UnknownLayout if there are tensors the family does not read: they might change the output."""
    others = [name for name in tensors if _tail(name) not in family.reads and not _known(name)]
    if others:
        few = ", ".join(shown(name) for name in sorted(others)[:3]) + (", ..." if len(others) > 3 else "")
        lora = any(".lora_" in name for name in others)
        advice = (
            "merge these LoRA matrices into the weights, or give them as a file of their own with --lora"
            if lora
            else "if they are left over from training, save the model without them"
        )
        raise UnknownLayout(
            f"RWKV-{config.version} has no place for {len(others)} of {len(tensors)} tensors ({few}); {advice}"
        )


def _tail(name: str) -> str:
    """The part of a name after `blocks.N.`."""
    return name.split(".", 2)[2] if layer_of(name) is not None else ""


def _known(name: str) -> bool:
    return name in ENDS or is_time_state(name) or is_unread(name)


def family_of(config: ModelConfig) -> Family:
    """The family named in a config."""
    return next(family for family in FAMILIES if family.name == config.family)
