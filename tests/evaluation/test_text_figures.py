"""Text: figures against float64 twins, tokens piece by piece, resuming, and bad input."""

import json
import math

import numpy as np
import pytest
import reference

import rwkv_engine
from rwkv_engine.evaluation import pieces, texts
from rwkv_engine.evaluation.keeping import Keeper
from rwkv_engine.evaluation.plot import plot
from rwkv_engine.evaluation.sums import BLOCKS, Sums, quantile, totals
from rwkv_engine.kernels.likelihood import costs_of, divergences

STORY = "Once upon a time there was a kind girl named Mia. She had a red ball.\n\n"


def nothing(line):
    """Progress that nobody looks at."""


def log_softmax(logits):
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.mark.parametrize("vocab", [7, 512, 1300])
def test_costs_and_divergences_are_those_of_float64(vocab):
    rng = np.random.default_rng(vocab)
    theirs = rng.normal(0, 4, (9, vocab)).astype(np.float32)
    for distance in (1e-5, 1e-2, 3):
        ours = (theirs + rng.normal(0, distance, theirs.shape)).astype(np.float32)
        targets, kl = rng.integers(0, vocab, 9), np.empty(9)
        costs, best = np.empty(9), np.empty(9, np.int64)
        costs_of(ours, targets, costs, best)
        divergences(theirs, ours, kl)
        p, q = log_softmax(theirs), log_softmax(ours)
        np.testing.assert_allclose(costs, -q[np.arange(9), targets], rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(best, ours.argmax(1))
        np.testing.assert_allclose(kl, (np.exp(p) * (p - q)).sum(1), rtol=2e-2, atol=1e-12)


def test_bits_per_byte_of_a_text_are_those_of_the_slow_twin(tmp_path, embedded):
    text = (STORY + "User: Who has the ball?\n\nAssistant: Mia has the red ball.\n\n") * 4
    (tmp_path / "t.txt").write_text(text)
    (row,) = rwkv_engine.evaluate(texts=[tmp_path / "t.txt"], weights="f32", memory=False)
    ids = embedded.tokenizer.encode(text)
    tensors = {name: tensor.float32() for name, tensor in embedded.checkpoint.tensors.items()}
    logits, _ = reference.forward("7", tensors, [0, *ids[:-1]])
    nats = -log_softmax(logits)[np.arange(len(ids)), ids].sum()
    assert row.tokens == len(ids)
    assert row.bits_per_byte == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-4)
    assert row.perplexity == pytest.approx(math.exp(nats / len(ids)), rel=1e-4)
    assert row.texts[0]["along"][-1]["tokens"] == len(ids)


def test_a_model_is_no_distance_from_itself_and_a_small_one_from_its_int8(tmp_path):
    (tmp_path / "t.txt").write_text(STORY * 20)
    same, packed = rwkv_engine.evaluate(
        texts=[tmp_path / "t.txt"], weights=["bf16", "int8"], against="bf16", memory=False
    )
    assert same.kl_max == 0 and same.top1_agreement == 1
    assert (
        0 < packed.kl_mean <= packed.kl_p99 <= packed.kl_max < 0.1
        and packed.bytes_per_token < same.bytes_per_token
    )


@pytest.mark.parametrize("name", ["embedded", "world", "bytes"])
def test_the_tokens_of_pieces_are_those_of_the_whole_text(tmp_path, monkeypatch, embedded, name):
    from rwkv_engine.text import Bytes, World

    tokenizer = {"embedded": embedded.tokenizer, "world": World(), "bytes": Bytes()}[name]
    monkeypatch.setattr(pieces, "PIECE", 1000)
    text = "".join(f"{STORY} Zahl {n}: größer, 東京  \n\n\tx = {n} ;\r\n" for n in range(60))
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = list(pieces.token_pieces(tmp_path / "t.txt", tokenizer))
    assert len(found) > 3
    assert [token for piece in found for token in piece] == tokenizer.encode(text)


def test_a_file_of_documents_is_read_document_by_document_with_the_token_that_ends_one(
    tmp_path, rwkv, embedded
):
    file, said = tmp_path / "t.jsonl", [STORY.strip(), "Tom has the ball."]
    file.write_text("\n".join(json.dumps({"text": text}) for text in said))
    found = list(texts.text_of(file).pieces(embedded.tokenizer))
    assert found == [embedded.tokenizer.encode(text) + [embedded.tokenizer.end] for text in said]
    (row,) = rwkv_engine.evaluate(texts=[file], memory=False)
    assert row.tokens == sum(map(len, found))
    for content, why in (('{"text": "a"}\n{"txt": "b"}\n', "line 2: got"), ("\n", "is empty")):
        file.write_text(content)
        assert why in rwkv("eval", "--text", file, status=2)


def test_a_text_without_spaces_is_read_all_the_same(tmp_path, monkeypatch, embedded):
    monkeypatch.setattr(pieces, "PIECE", 1000)
    (tmp_path / "t.txt").write_text("東京" * 20_000)
    found = pieces.token_pieces(tmp_path / "t.txt", embedded.tokenizer)
    assert embedded.tokenizer.decode(token for piece in found for token in piece) == "東京" * 20_000


def test_a_run_that_was_stopped_goes_on_to_the_same_figures(tmp_path, monkeypatch, embedded):
    (tmp_path / "t.txt").write_text(STORY * 60)
    whole = texts.read_text(embedded, None, texts.text_of(tmp_path / "t.txt"), None, Keeper(None), nothing)
    monkeypatch.setattr(texts, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(texts, "TELL_SECONDS", 0.0)
    passes = []

    def stop(line):
        passes.append(line)
        if len(passes) == 8:
            raise KeyboardInterrupt

    keeper = Keeper(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        texts.read_text(embedded, None, texts.text_of(tmp_path / "t.txt"), None, keeper, stop)
    again = texts.read_text(embedded, None, texts.text_of(tmp_path / "t.txt"), None, keeper, passes.append)
    assert again.blocks == whole.blocks
    assert len(passes) == whole.blocks[0][0] // 64 + len(whole.blocks[1:]) or len(passes) < 2 * 8 + 30
    kept = sorted(path.suffix for path in (tmp_path / "kept").iterdir())
    assert kept == [".json"]
    assert (
        texts.read_text(embedded, None, texts.text_of(tmp_path / "t.txt"), None, keeper, stop).blocks
        == whole.blocks
    )


def test_sums_are_the_same_size_however_long_a_text_is():
    sums = Sums(every=10)
    for _ in range(4 * BLOCKS):
        sums.add(np.ones(10), np.full(10, 0.5), np.full(10, 1e-3), np.ones(10, np.bool_))
    assert len(sums.blocks) <= BLOCKS
    np.testing.assert_allclose(totals([sums])[:3], [40 * BLOCKS, 40 * BLOCKS, 20 * BLOCKS])
    assert quantile([sums], 0.99) == pytest.approx(1e-3, rel=0.01)
    assert Sums.of_json(json.loads(json.dumps(sums.json()))).json() == sums.json()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"caf\xe9 au lait", "not UTF-8 text .byte 3."),
        (None, "No such"),
    ],
)
def test_a_bad_text_is_refused_in_one_sentence(tmp_path, rwkv, content, why):
    if content is not None:
        (tmp_path / "t.txt").write_bytes(content)
    complaint = rwkv("eval", "--text", tmp_path / "t.txt", status=2)
    assert __import__("re").search(why, complaint), complaint


def test_a_reference_with_another_vocabulary_is_refused(tmp_path, checkpoints, tokenizer_file, rwkv):
    path, _ = checkpoints("7", "F32", vocab=256)
    (tmp_path / "t.txt").write_text(STORY)
    complaint = rwkv("eval", "--text", tmp_path / "t.txt", "--against", path, status=2)
    assert "256 tokens" in complaint and "2048 tokens" in complaint


def test_the_command_draws_a_picture(tmp_path, rwkv):
    pytest.importorskip("matplotlib", reason="matplotlib (extra `plot`) is not installed")
    (tmp_path / "t.txt").write_text(STORY * 3)
    rwkv("eval", "--text", tmp_path / "t.txt", "--plot", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000


def test_a_reference_that_is_compared_with_itself_draws_no_warning(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib (extra `plot`) is not installed")
    (tmp_path / "t.txt").write_text(STORY * 3)
    formats = {"weights": ["bf16", "int8"], "against": "bf16"}
    rows = rwkv_engine.evaluate(texts=[tmp_path / "t.txt"], memory=False, **formats)
    for number, some in enumerate((rows, rows[:1])):
        plot(some, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000


def test_the_command_shows_rows_as_a_table_and_as_json(tmp_path, rwkv):
    (tmp_path / "t.txt").write_text(STORY * 3)
    shown = rwkv("eval", "--text", tmp_path / "t.txt", "--markdown")
    assert shown.startswith("| model | format | bits a byte |")
    (row,) = json.loads(rwkv("eval", "--text", tmp_path / "t.txt", "--json", "--against", "f32"))
    wanted = "bits_per_byte perplexity kl_mean kl_p99 top1_agreement bytes_per_token peak_bytes tokens_per_second tasks"
    assert set(wanted.split()) <= set(row) and row["tasks"] == [] and row["kl_mean"] < 1e-9
