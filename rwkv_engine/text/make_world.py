"""Makes the package data `world.bin` from the vocabulary file of PyPI's `rwkv` (rwkv_vocab_v20230424.txt,
Apache-2.0).

    python -m rwkv_engine.text.make_world rwkv_vocab_v20230424.txt rwkv_engine/text/world.bin

Lines of the vocabulary are `id repr length`; the repr is of a str or of bytes. The data are zlib over: a byte
with each token's length in the order of ids from 1, then the tokens' bytes one after another.
"""

import argparse
import ast
import zlib
from pathlib import Path


def parse(text: str) -> list[bytes]:
    """The tokens' bytes in the order of their ids, which must be 1, 2, 3 ..."""
    tokens: list[bytes] = []
    for line in text.splitlines():
        number, rest = line.split(" ", 1)
        literal, length = rest.rsplit(" ", 1)
        value = ast.literal_eval(literal)
        data = value.encode("utf-8") if isinstance(value, str) else value
        if len(data) != int(length) or int(number) != len(tokens) + 1:
            raise ValueError(f"vocabulary line {line!r}: ids must follow one another and lengths be right")
        tokens.append(data)
    return tokens


def pack(tokens: list[bytes]) -> bytes:
    """The package data."""
    return zlib.compress(bytes(map(len, tokens)) + b"".join(tokens), 9)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vocabulary", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    tokens = parse(options.vocabulary.read_text(encoding="utf-8"))
    options.out.write_bytes(pack(tokens))
    print(f"{options.out}: {len(tokens)} tokens, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
