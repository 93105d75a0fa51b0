"""Streaming: whatever the pieces, the same text comes out and the same stop string is found."""

import itertools

import pytest

from rwkv_engine import OptionError
from rwkv_engine.text.stream import Characters, Stops


def splits(data):
    """All ways to cut data in up to four pieces."""
    places = range(1, len(data))
    for count in range(4):
        for cuts in itertools.combinations(places, count):
            yield [data[a:b] for a, b in itertools.pairwise((0, *cuts, len(data)))]


def test_characters_come_whole_however_their_bytes_are_cut():
    data = "aé你😀".encode()
    for pieces in splits(data):
        characters = Characters()
        texts = [characters.push(piece) for piece in pieces]
        assert "".join(texts) + characters.finish() == "aé你😀"
        assert all("\ufffd" not in text for text in texts)


def test_an_incomplete_character_at_the_end_is_shown_as_a_replacement():
    characters = Characters()
    assert characters.push("é".encode()[:1]) == ""
    assert characters.finish() == "\ufffd"


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        ("ab\n\nUser: c", ["\n\nUser:"], "ab"),
        ("ab\n\nUse a", ["\n\nUser:"], None),
        ("aabaabaac", ["aabaac"], "aab"),
        ("xxéy", ["é"], "xx"),
        ("one two", ["two", "ne t"], "o"),
        ("aaaa", ["b"], None),
    ],
)
def test_a_stop_string_is_found_however_the_bytes_are_cut(text, stops, shown):
    for pieces in splits(text.encode()):
        matcher, out, hit = Stops(stops), b"", False
        for piece in pieces:
            part, hit = matcher.push(piece)
            out += part
            assert not any(stop.encode() in out for stop in stops)
            if hit:
                break
        assert hit == (shown is not None)
        assert (out if hit else out + matcher.finish()).decode() == (text if shown is None else shown)


@pytest.mark.parametrize("stops", [[""], ["a", ""], "text", [3]])
def test_stop_strings_that_cannot_be_meant_are_refused(stops):
    with pytest.raises(OptionError, match="stop"):
        Stops(stops)
