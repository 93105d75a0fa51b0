"""`open_checkpoint`: from a path to tensors under canonical names."""

from collections.abc import Callable
from pathlib import Path

from rwkv_engine.checkpoints.checkpoint import Checkpoint, Contents, identity
from rwkv_engine.checkpoints.folder import files_of, merged
from rwkv_engine.checkpoints.gguf_file import open_gguf
from rwkv_engine.checkpoints.layouts import canonical
from rwkv_engine.checkpoints.mapping import map_file
from rwkv_engine.checkpoints.packed_file import KEY, packed_contents
from rwkv_engine.checkpoints.safetensors_file import float_contents
from rwkv_engine.checkpoints.torch_zip import open_torch_zip
from rwkv_engine.errors import CheckpointError, UnknownLayout, about
from rwkv_engine.numbers.container import read_header


def _open_safetensors(path: Path) -> Contents:
    """A safetensors file with float tensors, or a packed file."""
    data = map_file(path)
    entries, metadata = read_header(path, data)
    if KEY in metadata:
        return packed_contents(path, data, entries, metadata)
    return float_contents(path, data, entries, metadata)


OPENERS: dict[str, Callable[[Path], Contents]] = {
    "safetensors": _open_safetensors,
    "torch zip": open_torch_zip,
    "gguf": open_gguf,
}


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a model in any supported container and naming scheme; only headers are read.

    path    a file (safetensors, web-rwkv .st, BlinkDL .pth, GGUF; recognised by content, not by name), or a
            folder with one model, in one file or in shards.
    Raises  UnknownLayout (readable, not an RWKV model), CheckpointError (missing, truncated or damaged file),
            MissingExtra (GGUF without the package `gguf`).
    """
    path = Path(path)
    with about(path):
        files, wanted = files_of(path)
        # taken before opening: a file that is replaced now is not mistaken for the new one
        identities = tuple(identity(file) for file in files)
        contents = merged(path, [_open_file(file) for file in files], wanted)
        layout, tensors = canonical(path, contents)
    folder = path if path.is_dir() else path.parent
    return Checkpoint(
        path,
        contents.container,
        layout,
        tensors,
        contents.metadata,
        folder,
        contents.packing,
        tuple(files),
        identities,
    )


def _open_file(path: Path) -> Contents:
    with about(path):
        return OPENERS[container_of(path)](path)


def container_of(path: Path) -> str:
    """A key of OPENERS, from the file's first bytes.

    Raises UnknownLayout, or CheckpointError for an empty file.
    """
    start = map_file(path)[:16].tobytes()
    if not start:
        raise CheckpointError(f"{path} is empty; copy the file again.")
    for magic, container in ((b"PK\x03\x04", "torch zip"), (b"GGUF", "gguf")):
        if start.startswith(magic):
            return container
    if start[8:9] == b"{":
        return "safetensors"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        raise UnknownLayout(
            f"{path} is a bare pickle, which can run code, and is not read; in torch 1.6 or newer, write it again: "
            "torch.save(torch.load(old, weights_only=True), new)."
        )
    raise UnknownLayout(
        f"{path} is no model file: it begins with {start[:8]!r}; wanted safetensors, .st, a .pth written by torch 1.6 or newer, or GGUF."
    )
