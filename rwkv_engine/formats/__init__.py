"""Weight formats: how the numbers of a matrix are stored in memory.

Each row of FORMATS is a file with a `Format` record. The type that a format's `pack` makes selects the
kernels when a family's program is compiled. To add a format, write its record and its kernels, like `int8`
and `kernels.matmul_int8`, and add it to FORMATS: loading, packed files, `quantize`, memory estimates and
options then support it.
"""

from collections.abc import Sequence

from rwkv_engine.errors import CheckpointError, OptionError
from rwkv_engine.formats import bf16, f16, f32, int4, int5, int8
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor

FORMATS: dict[str, Format] = {
    one.name: one for one in (f32.FORMAT, bf16.FORMAT, f16.FORMAT, int8.FORMAT, int5.FORMAT, int4.FORMAT)
}
#: the format that `quantize` and `pull` make unless told otherwise
DEFAULT = int8.FORMAT.name
#: a GGUF's types with at most so many bits a number run as int4, those with more as int8
INT4_BITS = 5.0


def format_named(name: str) -> Format:
    """The format with this name; OptionError, with the valid names, if there is none."""
    if name not in FORMATS:
        raise OptionError.of("weights", name, f"one of {', '.join(FORMATS)}")
    return FORMATS[name]


def quantized_names() -> tuple[str, ...]:
    """Names of the formats that `quantize` makes."""
    return tuple(name for name, one in FORMATS.items() if one.quantized)


def stored_formats() -> dict[str, Format]:
    """The formats in which packed matrices may lie, by their names in a file: each as rows, or by units."""
    quantized = [one for one in FORMATS.values() if one.quantized]
    return {one.name: one for each in quantized for one in (each, each.by_units) if one}


def own_format(tensors: Sequence[Tensor]) -> Format:
    """The lossless format of these tensors: a quantized one if any is packed, f32 if types differ.

    Raises CheckpointError for tensors packed in several formats.
    """
    tags = {tensor.dtype for tensor in tensors}
    own = [
        one
        for one in FORMATS.values()
        if one.tag in tags or (one.by_units is not None and one.by_units.tag in tags)
    ]
    packed = [one for one in own if one.quantized]
    if len(packed) > 1:
        names = " and ".join(one.name for one in packed)
        raise CheckpointError(f"the matrices are packed in several formats, {names}; pack the model again")
    if packed:
        return packed[0]
    return own[0] if len(own) == 1 else f32.FORMAT


def format_for(tensors: Sequence[Tensor], weights: str | None) -> Format:
    """The format to run matrices in: the one called `weights`, or (None) their own; matrices that a GGUF has
    quantized run as int8 or int4.

    Raises OptionError for an unknown name, and for matrices packed in another format; CheckpointError as
    `own_format`.
    """
    wanted, own = None if weights is None else format_named(weights), own_format(tensors)
    if wanted is not None and own.quantized and wanted is not own:
        raise OptionError(
            f"weights: got {weights!r}, but the model is packed in {own.name}; load the checkpoint that it was made of"
        )
    return wanted or _in_kind(tensors) or own


def _in_kind(tensors: Sequence[Tensor]) -> Format | None:
    """What matrices run in that a GGUF has quantized: what suits most of their bytes. None: they are floats."""
    most: dict[Format | None, float] = {int8.FORMAT: 0, int4.FORMAT: 0, None: 0}
    for tensor in tensors:
        suits = None if tensor.kind is None else int4.FORMAT if tensor.kind.bits <= INT4_BITS else int8.FORMAT
        most[suits] += tensor.nbytes
    return max(most, key=lambda suits: most[suits]) if any(tensor.kind for tensor in tensors) else None


def table_format(tensors: Sequence[Tensor], format: Format) -> Format:
    """The format of tables, such as the embedding, beside matrices in `format`: their own; f16 where a GGUF
    has quantized them and `format` is no exact one, for as float32 they would be larger than the matrices.
    """
    return f16.FORMAT if format.quantized and any(tensor.kind for tensor in tensors) else own_format(tensors)
