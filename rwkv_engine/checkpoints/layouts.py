"""Layouts: whose tensor names a file uses, and how they become BlinkDL's."""

from collections.abc import Mapping
from pathlib import Path

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.errors import UnknownLayout
from rwkv_engine.tensor import Tensor


def canonical(path: Path, contents: Contents) -> tuple[str, Mapping[str, Tensor]]:
    if "emb.weight" not in contents.tensors:
        raise UnknownLayout(f"{path}: no RWKV model")
    return "BlinkDL", contents.tensors
