"""Tokenizers of other people: where texts end, padding, rounded-up vocabularies, holes, and special tokens in
prompts.
"""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_tokenizers import bpe, byte_level, sentencepiece, special, write
from scripted_model import ScriptedModel

from rwkv_engine import CheckpointError, Constraint, OptionError, Sampling, TokenError
from rwkv_engine.text import World, find_tokenizer, packable
from rwkv_engine.text.bpe import Json
from rwkv_engine.writing import generate as writing
from rwkv_engine.writing.wishes import Wishes


def generate(model, prompt, **wishes):
    return writing.generate(model, prompt, Wishes(**wishes))


class Repeats(ScriptedModel):
    """A model that says given tokens, whatever it is asked, and then `last` for ever."""

    def __init__(self, tokenizer, tokens, last=0, vocab=None):
        super().__init__({})
        self.tokenizer, self._tokens, self._last = tokenizer, list(tokens), last
        self.vocab, self.format = vocab or tokenizer.size, "f32"

    def _next(self, text):
        return 0

    def feed(self, tokens, state):
        super().feed([97 for _ in tokens], state)
        logits = np.zeros(self.vocab, np.float32)
        logits[self._tokens.pop(0) if self._tokens else self._last] = 30
        return logits

    def skim(self, tokens, state):
        super().feed([97 for _ in tokens], state)


def said(tokenizer, tokens, prompt=(1,), **options):
    options = {"max_tokens": len(tokens), "sampling": Sampling(temperature=0)} | options
    return list(generate(Repeats(tokenizer, tokens, vocab=1000), list(prompt), **options))


@pytest.mark.parametrize(
    "decoder", [None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}]
)
@pytest.mark.parametrize("text", ["the cat sat", "hi 🐱 the", "你好", "the\n  cat"])
def test_what_is_written_token_by_token_is_the_decoded_text(tmp_path, decoder, text):
    made = sentencepiece(["▁the", "▁cat", "▁sat"], *([decoder] if decoder else []))
    tokenizer = find_tokenizer(1000, tmp_path, write(tmp_path, made))
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = library.encode(text, add_special_tokens=False).ids
    assert "".join(step.text for step in said(tokenizer, ids)) == tokenizer.decode(ids) == library.decode(ids)


def test_a_space_between_words_comes_with_the_second_word(tmp_path):
    tokenizer = find_tokenizer(1000, None, write(tmp_path, sentencepiece(["▁the", "▁cat"])))
    steps = said(tokenizer, tokenizer.encode("the cat"), tokenizer.encode("cat"))
    assert [step.text for step in steps] == [" the", " cat"]


@pytest.mark.parametrize(
    ("beside", "ends"),
    [
        ({}, []),
        ({"generation_config": {"eos_token_id": [300, 301]}, "config": {"eos_token_id": 2}}, [300, 301]),
        ({"config": {"eos_token_id": 301}}, [301]),
        ({"tokenizer_config": {"eos_token": "<|b|>"}}, [301]),
        (
            {"tokenizer_config": {"eos_token": {"content": "<|b|>"}}, "config": {"eos_token_id": 300}},
            [300, 301],
        ),
        ({"special_tokens_map": {"eos_token": "<|a|>"}}, [300]),
        ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": [True, -1, 10**9]}}, []),
    ],
)
def test_the_end_is_what_the_files_beside_it_say_or_there_is_none(tmp_path, beside, ends):
    made = byte_level(["<|a|>", "<|b|>"], gap=44)
    tokenizer = find_tokenizer(400, tmp_path, write(tmp_path, made, **beside))
    assert (tokenizer.end, tokenizer.ends) == (ends[0] if ends else None, frozenset(ends))
    again = find_tokenizer(400, None, None, packable(tokenizer))
    assert (again.end, again.ends) == (tokenizer.end, tokenizer.ends)
    steps = said(tokenizer, [0, 0, 301, 0])
    assert [step.token for step in steps] == ([0, 0, 301] if 301 in ends else [0, 0, 301, 0])
    assert steps[-1].stop == ("end" if 301 in ends else "length")
    assert "".join(step.text for step in steps).startswith("!!")
    if not ends:
        with pytest.raises(OptionError, match="no end token"):
            generate(Repeats(tokenizer, [0]), "")


def test_files_beside_a_tokenizer_may_begin_with_a_byte_order_mark_and_must_be_json(tmp_path):
    path = write(tmp_path, byte_level(["<|a|>"]))
    path.write_text("\ufeff" + path.read_text("utf-8"), "utf-8")
    (tmp_path / "generation_config.json").write_text('\ufeff{"eos_token_id": 256}', "utf-8")
    assert find_tokenizer(400, tmp_path).end == 256
    for wrong in ("[1]", "{", '{"a": ' * 100000, "\x00"):
        (tmp_path / "generation_config.json").write_text(wrong, "utf-8")
        with pytest.raises(CheckpointError, match="generation_config.json") as caught:
            find_tokenizer(400, tmp_path)
        assert len(str(caught.value)) <= 500


def test_padding_and_truncation_do_not_touch_a_prompt():
    made = byte_level()
    made["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    side = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    made["padding"] = {"strategy": {"Fixed": 1 << 12}, **side}
    assert len(Json.of_text(json.dumps(made), "t").encode("twelve bytes")) == 12


def test_ids_without_a_token_are_nothing_in_a_text_and_are_never_chosen_by_a_constraint(tmp_path):
    made = byte_level(["<|endoftext|>"], words=["hel"], gap=44)
    tokenizer = find_tokenizer(400, tmp_path, write(tmp_path, made))
    top = tokenizer.size - 1
    assert (top, tokenizer.end) == (255 + 2 + 44 + 1, top)
    hole = top - 5
    steps = said(tokenizer, [*tokenizer.encode("he"), hole, 350, *tokenizer.encode("l"), top])
    assert "".join(step.text for step in steps) == "hel" and steps[-1].stop == "end"
    assert (
        tokenizer.token_bytes(hole) == tokenizer.token_bytes(399) == b""
        and tokenizer.decode([hole, 399]) == ""
    )
    with pytest.raises(TokenError):
        tokenizer.token_bytes(400)
    model = Repeats(tokenizer, [hole, 350, 0, 1, 2], vocab=400)
    steps = list(
        generate(model, [1], constraint=Constraint.choice(["hel!", "hel?"]), sampling=Sampling(temperature=0))
    )
    assert "".join(step.text for step in steps) in ("hel!", "hel?") and steps[-1].stop in ("end", "complete")


def test_a_constraint_ends_without_an_end_token_and_with_several(tmp_path):
    for beside in ({}, {"generation_config": {"eos_token_id": [256, 257]}}):
        tokenizer = find_tokenizer(300, tmp_path, write(tmp_path, byte_level(["<|a|>", "<|b|>"]), **beside))
        for pattern, texts in (("!{2}", ["!!"]), ("!+", ["!" * n for n in range(1, 9)])):
            model = Repeats(tokenizer, [0, 0, 257], vocab=300)
            constraint = Constraint.regex(pattern)
            steps = list(
                generate(model, [1], constraint=constraint, max_tokens=8, sampling=Sampling(temperature=0))
            )
            text = "".join(step.text for step in steps)
            assert text in texts and steps[-1].stop in ("end", "complete")
            assert pattern != "!+" or len(text) == (2 if beside else 8)


def test_a_constraint_is_refused_where_tokens_depend_on_their_neighbours():
    decoder = {"type": "CTC", "pad_token": "_", "word_delimiter_token": "|", "cleanup": True}
    tokenizer = Json.of_text(json.dumps(bpe({"a": 0, "b": 1}, decoder=decoder)), "t")
    with pytest.raises(OptionError, match="decoder"):
        Constraint.choice(["a"]).begin(tokenizer)


def test_a_constraint_holds_with_byte_fallback(tmp_path):
    tokenizer = find_tokenizer(1000, None, write(tmp_path, sentencepiece(["▁the", "▁cat"])))
    for seed in range(4):
        model = Repeats(tokenizer, [seed * 50] * 60, vocab=400)
        constraint = Constraint.choice(["the 🐱 cat", " cat", "中"])
        steps = list(
            generate(model, [1], constraint=constraint, sampling=Sampling(seed=seed, temperature=5.0))
        )
        assert "".join(step.text for step in steps) in ("the 🐱 cat", " cat", "中")


@example(" <a>|", True, False, False)  # the longer one takes no white space along, the shorter one in it does
@example(" bb bbb<a>|bb", True, True, True)
@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="<a>| \n[bb]", max_size=12), st.booleans(), st.booleans(), st.booleans())
def test_a_text_is_cut_at_its_special_tokens_as_the_library_cuts_it(text, left, right, word):
    names = ["<a>", "<a>|", "[b]", "bb"]
    made = byte_level(["<|endoftext|>"])
    made["added_tokens"] += [
        special(name, 257 + i, lstrip=left and i != 1, rstrip=right and i != 2, single_word=word and i == 3)
        for i, name in enumerate(names)
    ]
    ours, library = Json.of_text(json.dumps(made), "t"), tokenizers.Tokenizer.from_str(json.dumps(made))
    parts = ours.split(text)
    ids = [i for part in parts for i in ([part] if isinstance(part, int) else ours.encode(part))]
    assert ids == library.encode(text, add_special_tokens=False).ids


def test_text_with_a_lone_surrogate_is_refused_in_one_sentence():
    from rwkv_engine.text import Bytes

    for tokenizer in (World(), Bytes(), Json.of_text(json.dumps(byte_level()), "t")):
        with pytest.raises(TokenError, match="lone surrogate at position 2"):
            tokenizer.encode("ab\ud83d")


def test_a_panic_of_the_library_is_an_error_of_the_engine():
    made = bpe({"a": 0, " ": 1}, decoder={"type": "Strip", "content": " ", "start": 1, "stop": 1})
    tokenizer = Json.of_text(json.dumps(made), "t")
    with pytest.raises(TokenError, match="cannot decode"):
        tokenizer.decode([1])
    made = bpe({"[UNK]": 0}) | {
        "model": {
            "type": "WordPiece",
            "vocab": {"a": 0},
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        }
    }
    with pytest.raises(TokenError, match="cannot encode"):
        Json.of_text(json.dumps(made), "t").encode("b")


def test_ids_that_no_model_has_are_refused_and_cost_nothing(tmp_path):
    for made in (byte_level(["<|a|>"], gap=1 << 40), byte_level(["<|a|>"], gap=1 << 31)):
        with pytest.raises(CheckpointError, match="ids up to|not a readable"):
            find_tokenizer(400, tmp_path, write(tmp_path, made))
    made = byte_level(["<|a|>"], gap=3)
    made["model"]["vocab"]["!"] = 1 << 31
    with pytest.raises(CheckpointError, match="ids up to"):
        find_tokenizer(400, tmp_path, write(tmp_path, made))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([1, *range(3, 9), 100, 243, 162, 147, 180, 259, 262, 264, 266]), max_size=12),
    st.sampled_from(["🐱", "t", "e ", " ", "\ufffd", "th", "ee"]),
    st.booleans(),
)
def test_a_stop_string_is_found_in_the_decoded_text_and_the_state_is_before_it(ids, stop, last_apart):
    suffix = {"type": "BPEDecoder", "suffix": "e"}
    tokenizer = Json.of_text(
        json.dumps(sentencepiece(["▁the"], *([suffix] if last_apart else []))), "t", rows=300
    )
    model = Repeats(tokenizer, [*ids, 2], vocab=300)
    state = model.new_state()
    steps = list(
        writing.generate(
            model, [264], Wishes(max_tokens=40, sampling=Sampling(temperature=0), stop=[stop]), state
        )
    )
    decoder, out, places = tokenizer.decoder([264]), b"", [(0, 0)]
    for count, token in enumerate(ids, 1):
        out += decoder.push(token)
        places.append((len(out), count - decoder.held))
    written = (out + decoder.finish()).decode(errors="replace")
    before, found, _ = written.partition(stop)
    assert "".join(step.text for step in steps) == before
    assert steps[-1].stop == ("stop" if found else "end")
    # behind the last token that lies wholly before the stop string; tokens whose bytes came together count
    # together
    kept = max(count for size, count in places if size <= len(before.encode())) if found else len(ids)
    assert state.position - 1 == kept
