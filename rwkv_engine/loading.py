"""The door: from what a user names to a checkpoint, a model, or a packed file.

Short names are resolved here and nowhere below.
"""

from functools import partial
from pathlib import Path

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint, open_checkpoint
from rwkv_engine.checkpoints.lora import with_lora
from rwkv_engine.checkpoints.names import matrices
from rwkv_engine.errors import CheckpointError, OptionError, about
from rwkv_engine.formats import DEFAULT, format_for, own_format
from rwkv_engine.library.registry import EMBEDDED, INCLUDED, resolve
from rwkv_engine.model import Model
from rwkv_engine.numbers.sizes import bytes_of
from rwkv_engine.running import memory
from rwkv_engine.running.compiling import watcher
from rwkv_engine.system.files import expanded
from rwkv_engine.text import Tokenizer, find_tokenizer
from rwkv_engine.tools import describe as describing
from rwkv_engine.tools import quantize as packing
from rwkv_engine.tools.describe import Description
from rwkv_engine.tools.quantize import Progress, cached


def load(
    source: str | Path | None = None,
    weights: str | None = None,
    threads: int | None = None,
    *,
    tokenizer: str | Path | None = None,
    cache: bool = True,
    ram: int | str | None = None,
    lora: str | Path | None = None,
    lora_alpha: float | None = None,
) -> Model:
    """Make a checkpoint ready to run. Its weights stay in the mapped file where the format allows it.

    source     a checkpoint file or folder, or the short name of a registered model; None: the embedded model.
    weights    weight format: f32, bf16, f16, int8, int5 or int4; None: the one that keeps the file's numbers as
               they are; int8 or int4 for a GGUF that is quantized, whose exact numbers are f32.
    threads    lanes of a pass; None: as many physical cores as the work is worth.
    tokenizer  None: by vocabulary size and what lies beside the weights; "world", "bytes", or the path of a
               tokenizer.json.
    ram        bytes, or a size such as "900M", that this process is to stay under: weights that do not fit
               stay in the file and are read anew in every pass (Linux). None: no bound.
    cache      keep what a quantized format makes of a float checkpoint in the user's cache folder, and take
               it from there next time.
    lora       a LoRA that is merged into the matrices, W + B A lora_alpha / r: a file of RWKV-PEFT (.pth or
               safetensors), or a PEFT folder. The weights must be a checkpoint's, not packed ones.
    lora_alpha as it was trained with; None: as the PEFT folder says.
    Raises     CheckpointError, OptionError, MissingExtra.
    """
    watcher()
    path = path_of(source)
    limit = bytes_of(ram) if ram is not None else None
    with about(path):
        checkpoint = _opened(path, weights, lora, lora_alpha)
        if limit is not None:
            memory.require(memory.estimate(checkpoint, weights, cache=cache), limit)
        format = format_for(matrices(checkpoint.tensors), weights)
        if cache and format.quantized and checkpoint.packing is None:
            checkpoint = cached(checkpoint, format.name)
        beside = None if lora is None else expanded(lora).absolute()
        again = partial(
            load, path.absolute(), weights, threads, tokenizer=_absolute(tokenizer), cache=cache, ram=ram,
            lora=beside, lora_alpha=lora_alpha,
        )  # fmt: skip
        return Model(checkpoint, weights, threads, tokenizer, limit, again)


def _absolute(tokenizer: str | Path | None) -> str | Path | None:
    """The same tokenizer from whatever folder: the path of a file in full, a name as it is."""
    named = tokenizer is None or tokenizer in ("world", "bytes")
    return tokenizer if named else expanded(str(tokenizer)).absolute()


def embedded(name: str = EMBEDDED) -> Path:
    """The file of a model that comes with the engine.

    Raises CheckpointError where it was left out of the installation.
    """
    import rwkv_engine_weights

    path = Path(rwkv_engine_weights.__file__).parent / INCLUDED[name]
    if not path.is_file():
        raise CheckpointError(
            f"the {name.replace('-', ' ')} model is not installed ({path} is missing); give a model of your own",
            path=path,
        )
    return path


def path_of(source: str | Path | None) -> Path:
    """The path that `source` stands for: a path, the short name of a registered model, None or "embedded" for
    the embedded model, or "embedded-draft" for its draft.
    """
    name = EMBEDDED if source is None else str(source)
    own = source is None or (name in INCLUDED and not Path(name).exists())
    return embedded(name) if own else resolve(name)


def open_named(source: str | Path | None) -> Checkpoint:
    """`open_checkpoint` of whatever a user may name: see `path_of`."""
    return open_checkpoint(path_of(source))


def _opened(path: Path, weights: str | None, lora: str | Path | None, lora_alpha: float | None) -> Checkpoint:
    """The checkpoint at `path`, with the LoRA merged into it: in float32 where another format is made of its
    matrices.
    """
    checkpoint = open_checkpoint(path)
    if lora is None:
        if lora_alpha is not None:
            raise OptionError("lora_alpha: it goes with a LoRA; give lora (--lora) too")
        return checkpoint
    families.config_of(checkpoint)
    exact = weights not in (None, own_format(matrices(checkpoint.tensors)).name)
    return with_lora(checkpoint, lora, lora_alpha, exact)


def tokenizer_of(source: str | Path | None = None, tokenizer: str | Path | None = None) -> Tokenizer:
    """A model's tokenizer, without its weights.

    The arguments are those of `load`. Raises CheckpointError, OptionError.
    """
    checkpoint = open_named(source)
    vocab = families.config_of(checkpoint).vocab
    inside = checkpoint.packing.tokenizer if checkpoint.packing else None
    return find_tokenizer(vocab, checkpoint.files, tokenizer, inside)


def describe(
    source: str | Path | None = None,
    *,
    tokenizer: str | Path | None = None,
    lora: str | Path | None = None,
    lora_alpha: float | None = None,
) -> Description:
    """What a model is: family, sizes, layout, tokenizer, and the memory it takes.

    Of the model only headers are read.

    source, tokenizer, lora, lora_alpha  as for `load`.
    Raises                               CheckpointError, OptionError.
    """
    return describing.describe(_opened(path_of(source), None, lora, lora_alpha), tokenizer)


def quantize(
    source: str | Path,
    target: str | Path,
    format: str = DEFAULT,
    *,
    tokenizer: str | Path | None = None,
    template: str | None = None,
    progress: Progress | None = None,
    lora: str | Path | None = None,
    lora_alpha: float | None = None,
) -> None:
    """Write the checkpoint `source` to `target` with packed matrices, tokenizer and template inside.

    source     as for `load`.             target  a file; it is written beside and renamed into place when it
               is whole.
    format     a quantized weight format: int8, int5 or int4. Embedding, vectors and low-rank pairs keep the
               source's precision.
    tokenizer  as for `load`.             progress  called after every tensor.
    template   the chat template to put inside: a name or a Jinja file; None: the one that fits the
               vocabulary.
    lora, lora_alpha  as for `load`: what is packed is the merged model.
    At any time one tensor of the result is in memory. Raises CheckpointError, OptionError.
    """
    watcher()
    checkpoint = _opened(path_of(source), format, lora, lora_alpha)
    packing.quantize(
        checkpoint, expanded(target), format, tokenizer=tokenizer, template=template, progress=progress
    )
