"""The World tokenizer: exact, fast, and the same from compiled code as from the slow twin."""

import random
import time

import pytest

from rwkv_engine import TokenError
from rwkv_engine.text import World
from rwkv_engine.text.make_world import pack, parse
from rwkv_engine.text.world import COUNT, fast_encode, slow_encode

WORLD = World()
MIXED = (
    "The quick brown fox jumps; 你好，世界。これはテストです。\ndef f(x): return x ** 2  # комментарий 😀\n"
)


@pytest.mark.parametrize(
    ("text", "ids"), [(" Hello", [36786]), ("Hello ", [33155, 33]), ("\n\n", [261]), ("", [])]
)
def test_known_texts_have_their_known_ids(text, ids):
    assert WORLD.encode(text) == ids


def test_compiled_code_agrees_with_the_slow_twin_on_random_bytes_and_tokens():
    rng = random.Random(1)
    for _ in range(200):
        noise = bytes(rng.choices(range(256), k=rng.randint(1, 300)))
        tokens = b"".join(WORLD.token_bytes(rng.randint(1, COUNT)) for _ in range(30))
        text = "".join(
            chr(rng.choice([rng.randint(1, 127), rng.randint(0x80, 0xD7FF), rng.randint(0x10000, 0x10FFFF)]))
            for _ in range(60)
        )
        for data in (noise, tokens, text.encode()):
            ids = slow_encode(data)
            assert fast_encode(data) == ids
            assert b"".join(WORLD.token_bytes(i) for i in ids) == data


def test_a_text_comes_back_from_its_ids():
    text = MIXED * 100
    assert WORLD.decode(WORLD.encode(text)) == text


def test_unused_ids_stand_for_nothing_and_unknown_ones_are_refused():
    assert WORLD.decode([0, 65530, 65535]) == ""
    with pytest.raises(TokenError, match="65536"):
        WORLD.token_bytes(65536)


def test_ten_megabytes_are_encoded_in_a_second():
    data = (MIXED * 40_000).encode()
    fast_encode(data[:100])
    best = 0.0
    for _ in range(4):
        start = time.perf_counter()
        fast_encode(data)
        best = max(best, len(data) / (time.perf_counter() - start) / 1e6)
    assert best >= 10, f"{best:.1f} MB/s"


def test_the_vocabulary_file_is_read_as_literals_only():
    assert parse("1 'a' 1\n2 b'\\xff' 1\n3 '\\n ' 2") == [b"a", b"\xff", b"\n "]
    assert len(pack([b"a", b"bc"])) < 40
    with pytest.raises(ValueError, match="malformed"):
        parse("1 __import__('os').getcwd() 1")
    with pytest.raises(ValueError, match="follow"):
        parse("2 'a' 1")
