"""The draft of the embedded model: its size, its vocabulary, and how often it finds the same token."""

import math

import pytest

import rwkv_engine
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.library.registry import check_name
from rwkv_engine.loading import embedded as file_of


def test_the_draft_is_as_small_as_it_has_to_be():
    path = file_of("embedded-draft")
    parameters = sum(math.prod(tensor.shape) for tensor in open_checkpoint(path).tensors.values())
    assert parameters <= 600_000 and path.stat().st_size <= 1_500_000
    assert f"{parameters:,}" in (path.parent / "CARD.md").read_text()


def test_the_draft_finds_the_embedded_models_token_at_nine_places_of_ten():
    (row,) = rwkv_engine.evaluate(
        "embedded-draft", texts=["embedded"], tokens=2000, against="embedded", memory=False
    )
    assert row.top1_agreement > 0.9


def test_most_tokens_that_it_drafts_are_accepted_and_the_text_is_the_same(embedded, monkeypatch):
    from rwkv_engine.writing.pace import Pace

    monkeypatch.setattr(Pace, "length", lambda pace, kind, most, beside: min(3, most))
    draft, texts = rwkv_engine.load("embedded-draft"), []
    for one in (None, draft):
        steps = list(
            embedded.generate("Once upon a time", sampling=rwkv_engine.Sampling(temperature=0), draft=one)
        )
        texts.append("".join(step.text for step in steps))
    assert texts[0] == texts[1] and steps[-1].usage.drafted > 20 and steps[-1].usage.acceptance > 0.6


def test_a_model_cannot_be_registered_under_the_drafts_name():
    with pytest.raises(rwkv_engine.OptionError, match="comes with the engine"):
        check_name("embedded-draft")
