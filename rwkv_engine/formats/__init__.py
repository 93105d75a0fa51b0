"""Weight formats: how the elements of a matrix are laid out in memory. Each row of FORMATS is one file.

A format is a module with NAME, `pack(tensors)` and `unpack(rows, layer)`; the type that `pack` makes chooses the kernels when a
family's program is compiled. The float formats, of which one is every checkpoint's own, also have `pack_heads(layers, heads)` and
can be read by rows: embeddings and low-rank pairs are always in one of them.
"""

from types import ModuleType

from rwkv_engine.errors import OptionError
from rwkv_engine.formats import bf16, f16, f32, int8

FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (f32, bf16, f16, int8)}
#: element type in a file -> the format that keeps it as it is
OWN = {"F32": "f32", "BF16": "bf16", "F16": "f16"}
#: formats that lose precision, which a packed file stores
QUANTIZED = ("int8",)


def format_named(name: str) -> ModuleType:
    """The format called `name`; OptionError, with the names there are, for any other."""
    if name not in FORMATS:
        raise OptionError(f"weights: got {name!r}, want one of {', '.join(FORMATS)}")
    return FORMATS[name]


def own_format(dtypes: set[str]) -> str:
    """Name of the format that loses nothing of tensors of these element types: f32 where floats are mixed, int8 where some are packed."""
    if "INT8" in dtypes:
        return "int8"
    return OWN[next(iter(dtypes))] if len(dtypes) == 1 else "f32"
