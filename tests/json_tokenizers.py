"""Small tokenizer.json files of the kinds that people bring: byte-level, SentencePiece with byte fallback,
with gaps and ends.
"""

import json

LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPACES = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
LLAMA = {
    "type": "Sequence",
    "decoders": [
        SPACES,
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def special(token, number, **flags):
    """An entry of "added_tokens"."""
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    } | flags
    return {"id": number, "content": token, **flags}


def bpe(vocab, added=(), words=(), **other):
    """A BPE tokenizer's description; `words` are put together letter by letter."""
    merges = []
    for word in words:
        for end in range(1, len(word)):
            merges.append([word[:end], word[end]])
            vocab.setdefault(word[: end + 1], max(vocab.values()) + 1)
    merges = [list(pair) for pair in dict.fromkeys(map(tuple, merges))]
    return {
        "version": "1.0",
        "added_tokens": list(added),
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    } | other


def byte_level(names=(), words=(), gap=0, **other):
    """Byte-level: id 0 is "!"; special tokens `names` behind a gap of so many ids."""
    from tokenizers import pre_tokenizers

    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = bpe(vocab, words=words, pre_tokenizer=LEVEL, decoder=LEVEL, **other)
    start = max(vocab.values()) + 1 + gap
    made["added_tokens"] = [special(name, start + i) for i, name in enumerate(names)]
    return made


def sentencepiece(words, decoder=LLAMA):
    """As LLaMA's: spaces are "▁", and what no token has is written byte by byte."""
    names = ["<unk>", "<s>", "</s>"]
    vocab = {name: i for i, name in enumerate(names)}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for letter in sorted({letter for word in words for letter in word}):
        vocab[letter] = len(vocab)
    steps = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    made = bpe(
        vocab,
        [special(name, i) for i, name in enumerate(names)],
        words,
        normalizer={"type": "Sequence", "normalizers": steps},
        decoder=decoder,
    )
    made["model"] |= {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    return made


def write(folder, description, **beside):
    """Put a tokenizer.json into a folder, and other files (`generation_config={...}`) beside it; the
    tokenizer's path.
    """
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(description), "utf-8")
    for name, content in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return path
