"""A text file of any length as token ids, piece by piece: the ids are those of the whole text, the memory
that of a piece. And a file of documents, one after another.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from rwkv_engine.errors import OptionError
from rwkv_engine.system.json_text import parsed
from rwkv_engine.text import Tokenizer

#: what a file of documents ends with
DOCUMENTS = ".jsonl"
#: letters of a piece; letters around a cut that are looked at; pieces after which a text without any good
#: place is cut anywhere
PIECE, AROUND, MOST = 1 << 16, 400, 16
#: places where most tokenizers begin a new token: in front of a space or a line break between words
_PLACE = re.compile(r"(?<=\S)(?=[ \n]\S)")


def token_pieces(path: Path, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The ids of one piece of the file after another.

    Raises OptionError (no file, empty, not UTF-8) and TokenError.
    """
    text, full = "", False
    for part in _letters(path):
        text += part
        while len(text) >= PIECE + AROUND:
            at = _cut(text, tokenizer)
            if at is None and len(text) < MOST * PIECE:
                break
            at = PIECE if at is None else at
            full = True
            yield tokenizer.encode(text[:at])
            text = text[at:]
    if text:
        yield tokenizer.encode(text)
    elif not full:
        raise OptionError(f"{path}: the text is empty; give one with at least a word", path=path)


def _letters(path: Path) -> Iterator[str]:
    """The file's text in pieces of PIECE bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = 0
    try:
        with open(path, "rb") as file:
            while True:
                data = file.read(PIECE)
                behind = len(decoder.getstate()[0])
                text = decoder.decode(data, final=not data)
                yield text.removeprefix("\ufeff") if read == 0 else text
                if not data:
                    return
                read += len(data)
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror or error}", path=path) from None
    except UnicodeDecodeError as error:
        raise OptionError(
            f"{path}: not UTF-8 text (byte {read - behind + error.start}); convert it first", path=path
        ) from None


def _cut(text: str, tokenizer: Tokenizer) -> int | None:
    """The last place, of those that can be seen around, at which the tokens of the whole text have a
    boundary; None: there is none.
    """
    places = [found.start() for found in _PLACE.finditer(text, PIECE // 2, len(text) - AROUND)]
    for at in reversed(places[-50:]):
        if _is_boundary(text[at - AROUND : at], text[at : at + AROUND], tokenizer):
            return at
    return None


def _is_boundary(left: str, right: str, tokenizer: Tokenizer) -> bool:
    """Whether both sides have the tokens apart that they have together; the last ones of `right` go on behind
    its end.
    """
    apart, behind = tokenizer.encode(left), tokenizer.encode(right)
    sure = apart + behind[: len(behind) // 2]
    return tokenizer.encode(left + right)[: len(sure)] == sure


def documents(path: Path) -> Iterator[str]:
    """The text of each line's document. Raises OptionError."""
    found = False
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found = True
                    yield _text(line, f"{path}: line {number}")
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror or error}", path=path) from None
    except UnicodeDecodeError as error:
        raise OptionError(f"{path}: not UTF-8 text ({error.reason}); convert it first", path=path) from None
    if not found:
        raise OptionError(f"{path}: the text is empty; give one with at least a word", path=path)


def _text(line: str, where: str) -> str:
    try:
        found = parsed(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("text"), str) or not found["text"]:
        raise OptionError(f'{where}: got {line.strip()[:40]!r}, want {{"text": "..."}}, a document a line')
    return found["text"]
