"""Bytes, tokenizer.json files, and which tokenizer a model gets."""

import pytest

from rwkv_engine import CheckpointError, OptionError, TokenError
from rwkv_engine.text import Bytes, World, find_tokenizer


@pytest.fixture(scope="module")
def json_file(tmp_path_factory):
    """A small byte-level BPE with a special token 0, learned from a few words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the cat and the dog and the bird"] * 3, trainer)
    path = tmp_path_factory.mktemp("json") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("text", ["", "the cat", "naïve — 你好 😀", "<|endoftext|>", "a\n\n b\t\x00"])
def test_a_json_tokenizer_gives_a_text_back_byte_for_byte(json_file, text):
    tokenizer = find_tokenizer(300, json_file.parent)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == text.encode()


def test_what_a_user_types_is_never_the_end_of_a_document(json_file):
    tokenizer = find_tokenizer(300, json_file.parent)
    assert tokenizer.end == 0
    assert 0 not in tokenizer.encode("before <|endoftext|> behind")
    assert tokenizer.token_bytes(0) == b""


def test_ids_outside_a_vocabulary_are_refused(json_file):
    for tokenizer, unknown in ((find_tokenizer(300, json_file.parent), 300), (Bytes(), 256)):
        with pytest.raises(TokenError, match=str(unknown)):
            tokenizer.token_bytes(unknown)


def test_the_tokenizer_follows_the_vocabulary_and_the_files(json_file, tmp_path):
    assert isinstance(find_tokenizer(65536, json_file.parent), World)
    assert isinstance(find_tokenizer(256, tmp_path), Bytes)
    assert find_tokenizer(300, json_file.parent).name.endswith("tokenizer.json)")
    assert isinstance(find_tokenizer(65536, None, "bytes"), Bytes)
    assert find_tokenizer(50277, None, json_file).size <= 300


def test_no_tokenizer_is_an_error_that_says_where_to_put_one(tmp_path):
    with pytest.raises(CheckpointError, match="20B_tokenizer.json.*beside the weights"):
        find_tokenizer(50277, tmp_path)


@pytest.mark.parametrize(
    ("vocab", "choice"), [(1000, "world"), (100, "bytes"), (1000, "klingon"), (1000, "")]
)
def test_a_tokenizer_that_cannot_be_the_models_is_refused(vocab, choice):
    with pytest.raises(OptionError, match="tokenizer"):
        find_tokenizer(vocab, None, choice)


def test_a_broken_tokenizer_file_is_one_sentence(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="not a readable tokenizer.json"):
        find_tokenizer(1000, tmp_path)
