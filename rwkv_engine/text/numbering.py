"""Ids of added tokens: the `tokenizers` library numbers them after the vocabulary, whatever the file says."""

import json
import re
from collections.abc import Callable
from typing import Any

from rwkv_engine.errors import CheckpointError
from rwkv_engine.system.json_text import parsed

#: first characters of filler tokens; private-use ones, which no text contains
FILLER = "\U0010fffd\U0010fffc"
_ADDED = re.compile(r'(?<!\\)"added_tokens"\s*:\s*(?=\[)')


def renumbered(text: str, id_of: Callable[[str], int | None], rows: int) -> str | None:
    """The text of a tokenizer.json with a filler at each id without a token, or None if no id changes.

    id_of   the library's ids for the unchanged file.
    rows    number of ids that the model has; 0: unknown.
    Raises  CheckpointError for an id that no model has, and for two tokens with one id.
    """
    found = _ADDED.search(text)
    added = json.JSONDecoder().raw_decode(text, found.end())[0] if found else []
    if all(id_of(token["content"]) == token["id"] for token in added):
        return None
    whole = parsed(text)
    vocab = whole["model"]["vocab"]
    used = set(vocab.values()) if isinstance(vocab, dict) else set()
    top = max(*(token["id"] for token in added), *used, 0)
    if top >= (rows or 1 << 22):
        raise CheckpointError(f"it has ids up to {top}, the model only {rows or 1 << 22} ids")
    if isinstance(vocab, dict):
        vocab.update({f"{FILLER}{i}": i for i in range(max(used, default=-1) + 1) if i not in used})
    whole["added_tokens"] = _without_gaps(added, vocab)
    return json.dumps(whole, ensure_ascii=False)


def _without_gaps(added: list[dict[str, Any]], vocab: Any) -> list[dict[str, Any]]:
    """The added tokens in the order of their ids, with fillers in the gaps."""
    known = set(vocab) if isinstance(vocab, dict) else {piece for piece, _ in vocab}
    filled, next_id = [], len(vocab)
    for token in sorted(added, key=lambda token: int(token["id"])):
        if token["content"] not in known:
            if token["id"] < next_id:
                raise CheckpointError(f"the id {token['id']} of an added token belongs to another token, too")
            kind = {**token, "special": True, "normalized": False, "lstrip": False, "rstrip": False}
            filled += [{**kind, "id": i, "content": f"{FILLER}{i}"} for i in range(next_id, int(token["id"]))]
            next_id = int(token["id"]) + 1
        filled.append(token)
    return filled
