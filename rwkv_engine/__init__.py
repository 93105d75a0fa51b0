"""RWKV language models on ordinary computers: load one, feed it tokens, let it write.

    model = rwkv_engine.load()                        # the embedded model; or a path
    for step in model.generate("Once upon a time"):
        print(step.text, end="", flush=True)

Public is what `__all__` names. Everything else in this package is internal and can change without notice.
A name is imported when it is first used, so importing this package costs nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # what checkers take for true; importing `typing` for it would take 4 ms
# type checkers and editors read this block, Python reads _HOME; a test keeps the two equal
if TYPE_CHECKING:
    from rwkv_engine.chat.answer import Part as Part
    from rwkv_engine.chat.answer import Turn as Turn
    from rwkv_engine.chat.conversation import Conversation as Conversation
    from rwkv_engine.errors import CheckpointError as CheckpointError
    from rwkv_engine.errors import DownloadError as DownloadError
    from rwkv_engine.errors import EngineError as EngineError
    from rwkv_engine.errors import MissingExtra as MissingExtra
    from rwkv_engine.errors import MissingTensor as MissingTensor
    from rwkv_engine.errors import OptionError as OptionError
    from rwkv_engine.errors import SessionError as SessionError
    from rwkv_engine.errors import StateError as StateError
    from rwkv_engine.errors import TokenError as TokenError
    from rwkv_engine.errors import UnknownLayout as UnknownLayout
    from rwkv_engine.errors import UnsupportedSystem as UnsupportedSystem
    from rwkv_engine.errors import WrongShape as WrongShape
    from rwkv_engine.evaluation.evaluate import evaluate as evaluate
    from rwkv_engine.library.pull import pull as pull
    from rwkv_engine.loading import describe as describe
    from rwkv_engine.loading import load as load
    from rwkv_engine.loading import quantize as quantize
    from rwkv_engine.model import Model as Model
    from rwkv_engine.numbers.shapes import ModelConfig as ModelConfig
    from rwkv_engine.running.compiling import watch_compiling as watch_compiling
    from rwkv_engine.shrinking.calibrate import calibrate as calibrate
    from rwkv_engine.shrinking.distill import Course as Course
    from rwkv_engine.shrinking.distill import distill as distill
    from rwkv_engine.shrinking.prune import prune as prune
    from rwkv_engine.state import State as State
    from rwkv_engine.text.chat import Template as Template
    from rwkv_engine.tools.state_files import blend as blend
    from rwkv_engine.writing.batch import Batch as Batch
    from rwkv_engine.writing.constraint import Constraint as Constraint
    from rwkv_engine.writing.prefix_cache import PrefixCache as PrefixCache
    from rwkv_engine.writing.sampling import Sampling as Sampling
    from rwkv_engine.writing.step import Step as Step
    from rwkv_engine.writing.step import Usage as Usage

__version__ = "0.1.0"

_HOME = {
    "chat.answer": "Part Turn",
    "chat.conversation": "Conversation",
    "errors": "CheckpointError DownloadError EngineError MissingExtra MissingTensor OptionError SessionError"
    " StateError TokenError UnknownLayout UnsupportedSystem WrongShape",
    "evaluation.evaluate": "evaluate",
    "library.pull": "pull",
    "loading": "describe load quantize",
    "model": "Model",
    "numbers.shapes": "ModelConfig",
    "running.compiling": "watch_compiling",
    "shrinking.calibrate": "calibrate",
    "shrinking.distill": "Course distill",
    "shrinking.prune": "prune",
    "state": "State",
    "text.chat": "Template",
    "tools.state_files": "blend",
    "writing.batch": "Batch",
    "writing.constraint": "Constraint",
    "writing.prefix_cache": "PrefixCache",
    "writing.sampling": "Sampling",
    "writing.step": "Step Usage",
}
_NAMES = {name: home for home, names in _HOME.items() for name in names.split()}

if not TYPE_CHECKING:  # a checker that saw these would take every misspelt name for a public one
    __all__ = sorted(_NAMES)

    def __getattr__(name):
        """Import a public name from its module on first use."""
        if name not in _NAMES:
            raise AttributeError(f"module 'rwkv_engine' has no attribute {name!r}")
        if _NAMES[name] != "errors":
            import_module("rwkv_engine.system.support").check()
        return getattr(import_module(f"rwkv_engine.{_NAMES[name]}"), name)

    def __dir__():
        """The public names, for completion and help()."""
        return list(__all__)
