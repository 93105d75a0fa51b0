"""Weight formats: how the elements of a matrix are laid out in memory. Each row of FORMATS is one file.

A format is a module with NAME, `pack(tensors)`, `pack_heads(tensors, heads)` and `unpack(rows, layer)`; the type that `pack` makes
chooses the kernels when a family's program is compiled.
"""

from types import ModuleType

from rwkv_engine.errors import OptionError
from rwkv_engine.formats import bf16, f16, f32

FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (f32, bf16, f16)}
#: element type in a file -> the format that keeps it as it is
OWN = {"F32": "f32", "BF16": "bf16", "F16": "f16"}


def format_named(name: str) -> ModuleType:
    """The format called `name`; OptionError, with the names there are, for any other."""
    if name not in FORMATS:
        raise OptionError(f"weights: got {name!r}, want one of {', '.join(FORMATS)}")
    return FORMATS[name]


def own_format(dtypes: set[str]) -> str:
    """Name of the format that loses nothing of tensors of these element types: f32 where they are mixed."""
    return OWN[next(iter(dtypes))] if len(dtypes) == 1 else "f32"
