"""RWKV language models on ordinary computers: load one, feed it tokens, let it write.

    model = rwkv_engine.load()                        # the embedded model; or a path
    for step in model.generate("Once upon a time"):
        print(step.text, end="", flush=True)

Names are imported when they are first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rwkv_engine.chat.conversation import Conversation
    from rwkv_engine.errors import (
        CheckpointError,
        DownloadError,
        EngineError,
        MissingExtra,
        MissingTensor,
        OptionError,
        SessionError,
        StateError,
        TokenError,
        UnknownLayout,
        UnsupportedSystem,
        WrongShape,
    )
    from rwkv_engine.library.pull import pull
    from rwkv_engine.loading import load, quantize
    from rwkv_engine.model import Model
    from rwkv_engine.numbers.shapes import ModelConfig
    from rwkv_engine.state import State
    from rwkv_engine.tools.state_files import blend
    from rwkv_engine.writing.batch import Batch
    from rwkv_engine.writing.constraint import Constraint
    from rwkv_engine.writing.prefix_cache import PrefixCache
    from rwkv_engine.writing.sampling import Sampling
    from rwkv_engine.writing.step import Step

__version__ = "0.1.0"

_HOME = {
    "Batch": "writing.batch",
    "CheckpointError": "errors",
    "Conversation": "chat.conversation",
    "Part": "chat.answer",
    "Template": "text.chat",
    "Turn": "chat.answer",
    "Usage": "writing.step",
    "Constraint": "writing.constraint",
    "DownloadError": "errors",
    "EngineError": "errors",
    "MissingExtra": "errors",
    "MissingTensor": "errors",
    "Model": "model",
    "ModelConfig": "numbers.shapes",
    "OptionError": "errors",
    "PrefixCache": "writing.prefix_cache",
    "Sampling": "writing.sampling",
    "SessionError": "errors",
    "State": "state",
    "StateError": "errors",
    "Step": "writing.step",
    "TokenError": "errors",
    "UnknownLayout": "errors",
    "UnsupportedSystem": "errors",
    "WrongShape": "errors",
    "blend": "tools.state_files",
    "load": "loading",
    "pull": "library.pull",
    "quantize": "loading",
}
__all__ = [  # noqa: F822  (they come through __getattr__)
    "Batch",
    "CheckpointError",
    "Conversation",
    "Constraint",
    "DownloadError",
    "EngineError",
    "MissingExtra",
    "MissingTensor",
    "Model",
    "ModelConfig",
    "OptionError",
    "Part",
    "PrefixCache",
    "Sampling",
    "SessionError",
    "State",
    "StateError",
    "Step",
    "Template",
    "TokenError",
    "Turn",
    "UnknownLayout",
    "UnsupportedSystem",
    "Usage",
    "WrongShape",
    "blend",
    "load",
    "pull",
    "quantize",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'rwkv_engine' has no attribute {name!r}")
    if _HOME[name] != "errors":
        import_module("rwkv_engine.system.support").check()
    return getattr(import_module(f"rwkv_engine.{_HOME[name]}"), name)
