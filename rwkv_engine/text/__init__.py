"""Text to tokens and back, and the forms of a talk."""

from pathlib import Path

from rwkv_engine.errors import CheckpointError, OptionError
from rwkv_engine.text.plain_bytes import Bytes
from rwkv_engine.text.tokenizer import Tokenizer
from rwkv_engine.text.world import World

#: vocabulary sizes that say which tokenizer a checkpoint was trained with
WORLD_SIZES, BYTES_SIZE, NEOX_SIZE = (65536, 65529, 65530), 256, 50277


def find_tokenizer(
    vocab: int, folder: Path | None = None, choice: str | Path | None = None, inside: str | None = None
) -> Tokenizer:
    """The tokenizer of a model.

    vocab   the model's vocabulary size.
    folder  where its files lie: a tokenizer.json there is taken unless the size says World or bytes.
    inside  what a packed file brings: "world", "bytes", or the text of a tokenizer.json.
    choice  "world", "bytes", or the path of a tokenizer.json or of a folder with one; None: by the two above.
    Raises  OptionError for a choice that is no tokenizer or has ids the model lacks; CheckpointError where none is found.
    """
    if choice is not None:
        return _chosen(vocab, choice)
    if inside is not None and inside not in ("world", "bytes"):
        from rwkv_engine.text.bpe import Json

        return _checked(vocab, Json.of_text(inside, "tokenizer.json inside the packed file"))
    if inside is not None:
        return _chosen(vocab, inside)
    if vocab in WORLD_SIZES:
        return World()
    beside = folder / "tokenizer.json" if folder else None
    if beside is not None and beside.is_file():
        return _checked(vocab, _json(beside))
    if vocab == BYTES_SIZE:
        return Bytes()
    hint = " (the 20B tokenizer of GPT-NeoX, 20B_tokenizer.json)" if vocab == NEOX_SIZE else ""
    raise CheckpointError(
        f"no tokenizer for a vocabulary of {vocab}: put the model's tokenizer.json{hint} beside the weights, or name one with --tokenizer"
    )


def packable(tokenizer: Tokenizer) -> str:
    """What `find_tokenizer` takes as `inside` to give this tokenizer back."""
    if isinstance(tokenizer, World):
        return "world"
    if isinstance(tokenizer, Bytes):
        return "bytes"
    from rwkv_engine.text.bpe import Json

    assert isinstance(tokenizer, Json)
    return tokenizer.text


def _chosen(vocab: int, choice: str | Path) -> Tokenizer:
    if choice == "world":
        return _checked(vocab, World())
    if choice == "bytes":
        return _checked(vocab, Bytes())
    path = Path(choice)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise OptionError(
            f"tokenizer: got {str(choice)!r}, want world, bytes or the path of a tokenizer.json"
        )
    return _checked(vocab, _json(path))


def _json(path: Path) -> Tokenizer:
    from rwkv_engine.text.bpe import Json

    return Json.of_file(path)


def _checked(vocab: int, tokenizer: Tokenizer) -> Tokenizer:
    """`tokenizer`, if the model has all its ids. A model may have more: sizes are often rounded up."""
    if tokenizer.size > vocab:
        raise OptionError(
            f"tokenizer {tokenizer.name} has {tokenizer.size} ids, the model only {vocab}; it belongs to another model"
        )
    return tokenizer


__all__ = ["Bytes", "Tokenizer", "World", "find_tokenizer", "packable"]
