"""Texts that come token by token are the texts that the `tokenizers` library decodes as a whole, whatever the
decoder.
"""

import contextlib
import json

import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_engine import TokenError
from rwkv_engine.text.bpe import Json

PIECES = [
    "▁the",
    "▁cat",
    "▁",
    "a",
    "b",
    " ",
    "  ",
    "##ing",
    "##",
    " .",
    ".",
    "n't",
    "low</w>",
    "</w>",
    "e</w>r",
    "|",
    "<pad>",
]
PIECES += [
    "",
    "Ġx",
    "Ã",
    "©",
    "ä½",
    "ł",
    "é",
    "你",
    "<0xF0>",
    "<0x9F>",
    "<0x90>",
    "<0xB1>",
    "<0x41>",
    "<0x0A>",
    "<0x+F>",
    "xyx",
    "yx",
]
SPECIAL = "<|end|>"
FALLBACK, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
SPACES = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}


def strip(start, stop, content=" "):
    return {"type": "Strip", "content": content, "start": start, "stop": stop}


KINDS = [
    LEVEL,
    FALLBACK,
    FUSE,
    *(
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": s, "split": True}
        for s in ("always", "never", "first")
    ),
    *({"type": "WordPiece", "prefix": "##", "cleanup": cleanup} for cleanup in (True, False)),
    {"type": "BPEDecoder", "suffix": "</w>"},
    *(
        {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": c}
        for c in (True, False)
    ),
    strip(1, 0),
    strip(2, 0, "a"),
    strip(1, 1),
    SPACES,
    {"type": "Replace", "pattern": {"String": "xyx"}, "content": "z"},
    {"type": "Replace", "pattern": {"Regex": "[ab]+"}, "content": "-"},
]
LLAMA = {"type": "Sequence", "decoders": [SPACES, FALLBACK, FUSE, strip(1, 0)]}


def tokenizer(decoder, pieces=PIECES):
    """A tokenizer.json whose ids are `pieces`, behind them a special token, a hole and another one."""
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    added = [
        dict(
            id=i, content=name, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True
        )
        for i, name in ((len(vocab), SPECIAL), (len(vocab) + 3, "<|far|>"))
    ]
    model = {"type": "BPE", "vocab": vocab | {a["content"]: a["id"] for a in added}, "merges": []}
    return json.dumps({"version": "1.0", "added_tokens": added, "decoder": decoder, "model": model})


def streamed(decoder, ids):
    out = b"".join(map(decoder.push, ids)) + decoder.finish()
    return out.decode("utf-8", errors="replace")


@st.composite
def decoders(draw):
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    return draw(st.sampled_from([kinds[0], {"type": "Sequence", "decoders": kinds}, LLAMA, None]))


@settings(max_examples=2000, deadline=None)
@given(decoders(), st.lists(st.integers(0, len(PIECES) + 6), max_size=30), st.integers(0, 30))
def test_tokens_one_by_one_give_what_the_library_decodes_as_a_whole(spec, ids, cut):
    text = tokenizer(spec)
    ours, library = Json.of_text(text, "t", rows=len(PIECES) + 7), tokenizers.Tokenizer.from_str(text)
    try:
        whole = library.decode(ids)
        begun = library.decode(ids[:cut])
    except BaseException as error:
        assert type(error).__name__ == "PanicException"  # it cannot strip texts that are too short
        with contextlib.suppress(TokenError):
            streamed(ours.decoder(), ids)
        return
    assert streamed(ours.decoder(), ids) == whole
    assert ours.decode(ids) == whole
    behind = streamed(ours.decoder(ids[:cut]), ids[cut:])
    if "\ufffd" not in whole:  # a prompt that ends within a character
        assert whole.endswith(behind) and (begun + behind == whole or not whole.startswith(begun))
