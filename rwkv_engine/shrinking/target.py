"""The file that a smaller model is written to, and the tokenizer beside it."""

from pathlib import Path

from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.errors import OptionError
from rwkv_engine.system.files import remove_leftovers, write_whole


def require_place(checkpoint: Checkpoint, target: Path, force: bool) -> None:
    """Raise OptionError where the target must not be written."""
    if target.exists() and checkpoint.path.exists() and target.samefile(checkpoint.path):
        raise OptionError(
            f"{target}: source and target are the same file; give the target another name", path=target
        )
    if target.exists() and not force:
        raise OptionError(f"{target} exists; give another name, or --force to write over it", path=target)
    if not target.absolute().parent.is_dir():
        raise OptionError(f"{target.absolute().parent} is no folder; make it first", path=target)


def take_tokenizer(checkpoint: Checkpoint, target: Path) -> None:
    """Copy the tokenizer.json beside the source, or inside it, to the target's folder, unless it has one.

    This comes before the target: a process killed in between leaves no model without its tokenizer.
    """
    beside, there = checkpoint.files / "tokenizer.json", target.absolute().parent / "tokenizer.json"
    inside = checkpoint.packing.tokenizer if checkpoint.packing else None
    remove_leftovers(there)
    if there.exists():
        return
    if inside is not None and inside.startswith("{"):
        write_whole(there, [inside.encode()])
    elif beside.is_file():
        write_whole(there, [beside.read_bytes()])
