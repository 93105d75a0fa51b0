"""Tokenizers and chat templates."""

from pathlib import Path

from rwkv_engine.errors import CheckpointError, OptionError, brief
from rwkv_engine.system.files import expanded
from rwkv_engine.text.companions import ends_beside
from rwkv_engine.text.plain_bytes import Bytes
from rwkv_engine.text.tokenizer import Decoder, Tokenizer
from rwkv_engine.text.world import World

#: vocabulary sizes that say which tokenizer a checkpoint was trained with
WORLD_SIZES, BYTES_SIZE, NEOX_SIZE = (65536, 65529, 65530), 256, 50277


def find_tokenizer(
    vocab: int, folder: Path | None = None, choice: str | Path | None = None, inside: str | None = None
) -> Tokenizer:
    """The tokenizer of a model.

    vocab   the model's vocabulary size.
    folder  folder of the model's files; its tokenizer.json is used unless the size says World or bytes.
    inside  what a packed file holds: "world", "bytes", or the text of a tokenizer.json.
    choice  "world", "bytes", or the path of a tokenizer.json or of a folder with one; None: chosen by the
            above.
    Raises  OptionError for a choice that is no tokenizer or has ids that the model lacks; CheckpointError if
            no tokenizer is found.
    """
    if choice is not None:
        return _chosen(vocab, choice, folder)
    if inside is not None and inside not in ("world", "bytes"):
        from rwkv_engine.text.bpe import Json

        return _checked(vocab, Json.of_text(inside, "tokenizer.json inside the packed file", rows=vocab))
    if inside is not None:
        return _chosen(vocab, inside, None)
    if vocab in WORLD_SIZES:
        return World()
    for name in ("tokenizer.json", *(("20B_tokenizer.json",) if vocab == NEOX_SIZE else ())):
        if folder is not None and (folder / name).is_file():
            return _checked(vocab, _json(vocab, folder / name, None))
    if vocab == BYTES_SIZE:
        return Bytes()
    hint = " (the 20B tokenizer of GPT-NeoX, 20B_tokenizer.json)" if vocab == NEOX_SIZE else ""
    raise CheckpointError(
        f"no tokenizer for a vocabulary of {vocab}: put the model's tokenizer.json{hint} beside the weights, or name one with --tokenizer"
    )


def packable(tokenizer: Tokenizer) -> str:
    """The value that `find_tokenizer` takes as `inside` to return this tokenizer."""
    if isinstance(tokenizer, World):
        return "world"
    if isinstance(tokenizer, Bytes):
        return "bytes"
    from rwkv_engine.text.bpe import Json

    assert isinstance(tokenizer, Json)
    return tokenizer.text


def _chosen(vocab: int, choice: str | Path, folder: Path | None) -> Tokenizer:
    if choice == "world":
        return _checked(vocab, World(vocab))
    if choice == "bytes":
        return _checked(vocab, Bytes(vocab))
    path = expanded(choice)
    try:
        path = path / "tokenizer.json" if path.is_dir() else path
        there = path.is_file()
    except (OSError, ValueError):  # too long for a path, or with a zero byte
        there = False
    if not there:
        raise OptionError(
            f"tokenizer: got {brief(repr(str(choice)))}, want world, bytes or the path of a tokenizer.json"
        )
    return _checked(vocab, _json(vocab, path, folder))


def _json(vocab: int, path: Path, folder: Path | None) -> Tokenizer:
    """The tokenizer in a file. Its end tokens come from the files beside it, else from those in `folder`."""
    from rwkv_engine.text.bpe import Json

    plain = Json.of_file(path, rows=vocab)
    ends = ends_beside(path.parent, plain.id_of) or (ends_beside(folder, plain.id_of) if folder else [])
    return plain.ending(ends) if ends else plain


def _checked(vocab: int, tokenizer: Tokenizer) -> Tokenizer:
    """`tokenizer`, if the model has all its ids. A model may have more: sizes are often rounded up."""
    if tokenizer.size > vocab:
        raise OptionError(
            f"tokenizer {tokenizer.name} has {tokenizer.size} ids, the model only {vocab}; it belongs to another model"
        )
    return tokenizer


__all__ = ["Bytes", "Decoder", "Tokenizer", "World", "find_tokenizer", "packable"]
