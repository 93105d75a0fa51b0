"""Opens model files of any container and naming scheme as a `Checkpoint` with BlinkDL's names and shapes."""

from rwkv_engine.checkpoints.checkpoint import Checkpoint
from rwkv_engine.checkpoints.opening import open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
