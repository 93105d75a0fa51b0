"""Recognises a file's naming scheme: the table of layouts, and models that are known but not supported."""

import re
from collections.abc import Mapping
from pathlib import Path

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.layout import Layout, Tensors, renamed
from rwkv_engine.checkpoints.layout_blinkdl import BLINKDL, WEB_V5, WEB_V6, WEB_V7
from rwkv_engine.checkpoints.layout_gguf import GGUF_V6, GGUF_V7
from rwkv_engine.checkpoints.layout_huggingface import FLA_V7, HF_V4, HF_V5, HF_V6, HF_V7
from rwkv_engine.checkpoints.names import is_time_state
from rwkv_engine.errors import CheckpointError, UnknownLayout, shown
from rwkv_engine.numbers.tensor import Tensor

#: a file's layout is the first row that matches
LAYOUTS: tuple[Layout, ...] = (
    WEB_V7,
    WEB_V6,
    WEB_V5,
    BLINKDL,
    FLA_V7,
    HF_V7,
    HF_V6,
    HF_V5,
    HF_V4,
    GGUF_V7,
    GGUF_V6,
)

#: what trainers and wrappers add in front of names, and inside them
PREFIXES = (
    "module.",
    "_forward_module.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "base_model.",
    "model.",
    "rwkv.",
    "rwkv7.",
)
INSIDE = ("._orig_mod.", "._fsdp_wrapped_module.", "._checkpoint_wrapped_module.", ".base_layer.")
WRAPPERS_LIMIT = 4
NAME_LIMIT = 200  #: characters; names appear in one-line messages

#: names that only occur in models this engine does not run -> what it is
REFUSED = (
    (
        re.compile(r"\bqkv\."),
        "an RWKV-7b model (it keeps attention, `qkv.`, whose memory grows with the text)",
    ),
    (re.compile(r"\brosa"), "an RWKV-8 model (ROSA, whose memory grows with the text)"),
    (
        re.compile(r"\bself_attn\.(receptance|time_|x_[rwkvag]\b|[rwkvag]_lora|r_k|w0)"),
        "RWKV's time mix in another model's layers (ARWKV7, RWKV6Qwen2)",
    ),
)


def canonical(path: Path, contents: Contents) -> tuple[str, Mapping[str, Tensor]]:
    """(the layout's name, tensors under BlinkDL's names).

    Raises UnknownLayout, WrongShape, CheckpointError.
    """
    tensors = bare(path, contents.tensors)
    _refuse_relatives(path, tensors)
    if contents.packing is not None:
        return BLINKDL.name, renamed(path, BLINKDL, tensors)
    for layout in LAYOUTS:
        if layout.marks(tensors):
            folder = path if path.is_dir() else path.parent
            return layout.name, layout.finish(renamed(path, layout, tensors), contents, folder)
    names = [tensor.name for tensor in contents.tensors.values()]
    few = ", ".join(shown(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
    raise UnknownLayout(
        f"{path} is no RWKV model that is known here: it holds {len(names)} tensors ({few or 'none'})."
    )


def bare(path: Path, tensors: Tensors) -> dict[str, Tensor]:
    """The tensors without the name prefixes of wrappers."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.isprintable() or len(name) > NAME_LIMIT:
            raise UnknownLayout(f"{path}: {shown(name)} is no proper name for a tensor; the file is damaged.")
        bare = name
        for wrapper in INSIDE:
            bare = bare.replace(wrapper, ".")
        for _ in range(WRAPPERS_LIMIT):
            bare = bare.removeprefix(next((prefix for prefix in PREFIXES if bare.startswith(prefix)), ""))
        if bare in result:
            raise CheckpointError(f"{path}: two tensors both are {shown(bare)}; save the plain state_dict.")
        result[bare] = tensor
    return result


def _refuse_relatives(path: Path, tensors: Tensors) -> None:
    for pattern, what in REFUSED:
        if any(pattern.search(name) for name in tensors):
            raise UnknownLayout(f"{path} is {what}; this engine runs RWKV-4, 5, 6 and 7.")
    if tensors and all(map(is_time_state, tensors)):
        raise UnknownLayout(
            f"{path} is a tuned initial state of {len(tensors)} layers, no model; load the model it was tuned for, "
            "and mount this with load_state or --state."
        )
