"""Model files of any container and naming, opened as one thing: a `Checkpoint` with BlinkDL's names and
shapes.
"""

from rwkv_engine.checkpoints.checkpoint import Checkpoint
from rwkv_engine.checkpoints.opening import open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
