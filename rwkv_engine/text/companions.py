"""Hugging Face's JSON files beside the weights: end tokens and the chat template."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwkv_engine.errors import CheckpointError, brief
from rwkv_engine.system.json_text import parsed

#: most bytes of such a file; a tokenizer.json of 260,000 tokens has 17 to 34 million
MOST = 1 << 26


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a chat template, its file, and the bos_token and eos_token that it sees."""

    text: str
    name: str
    bos: str = ""
    eos: str = ""


def read_text(path: Path, what: str) -> str:
    """A text file, with or without a byte order mark. Raises CheckpointError."""
    try:
        if path.stat().st_size > MOST:
            raise CheckpointError(f"{path}: not a readable {what} (over {MOST >> 20} MB)")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise CheckpointError(f"{path}: not a readable {what} ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not a readable {what} (not UTF-8 text: byte {error.start})") from None


def ends_beside(folder: Path, id_of: Callable[[str], int | None]) -> list[int]:
    """The ids that end a text, from the files in `folder`; the first one named comes first.

    id_of   returns the id of a special token by its text.
    As in transformers, generation_config.json has priority over config.json; the tokenizer's own files add
    ids.
    Raises  CheckpointError for a file that is no JSON object.
    """
    model = _ends(_json(folder, "generation_config.json"), id_of) or _ends(
        _json(folder, "config.json"), id_of
    )
    words = [
        end
        for name in ("tokenizer_config.json", "special_tokens_map.json")
        for end in _ends(_json(folder, name), id_of)
    ]
    return list(dict.fromkeys([*model, *words]))


def template_beside(folder: Path) -> Source | None:
    """The chat template in `folder`: chat_template.jinja, or the one in tokenizer_config.json.

    Raises CheckpointError.
    """
    config = _json(folder, "tokenizer_config.json")
    path, text, name = folder / "chat_template.jinja", None, "chat_template.jinja"
    if path.is_file():
        text = read_text(path, "chat template")
    else:
        text, name = config.get("chat_template"), "tokenizer_config.json"
        if isinstance(text, list):  # one for each use
            named = {row.get("name"): row.get("template") for row in text if isinstance(row, dict)}
            text = named.get("default")
    if not isinstance(text, str) or not text.strip():
        return None
    bos, eos = (_content(config.get(f"{which}_token")) or "" for which in ("bos", "eos"))
    return Source(text, f"{folder.name}/{name}", bos, eos)


def _ends(config: dict[str, Any], id_of: Callable[[str], int | None]) -> list[int]:
    """The ids in eos_token_id and eos_token, each of which may be a list."""
    found: list[int | None] = []
    for key in ("eos_token_id", "eos_token"):
        value = config.get(key)
        for one in value if isinstance(value, list) else [value]:
            text = _content(one)
            found.append(id_of(text) if text else one if type(one) is int else None)
    return [end for end in found if end is not None]


def _content(token: object) -> str | None:
    """The text of a special token, which is stored as a string or as an object with its properties."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file, empty if there is none."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        found = parsed(read_text(path, "JSON file"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not a readable JSON file ({brief(error, 120)})") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: got {type(found).__name__}, want a JSON object")
    return found
