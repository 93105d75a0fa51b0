"""What a caller may say of how a text is to be written: None where there is nothing to say, one text for a list
of one, and nothing of another kind.
"""

import numpy as np
import pytest

from rwkv_engine import Batch, Conversation, OptionError, Sampling, evaluate

GREEDY = Sampling(temperature=0)


def written(steps):
    return "".join(step.text for step in steps)


def added(model, **wishes):
    batch = Batch(model)
    batch.add("Once upon a", **wishes)
    steps = []
    while len(batch):
        steps += [step for _, step in batch.step()]
    return written(steps)


def generated(model, **wishes):
    return written(model.generate("Once upon a", **wishes))


def said(model, **wishes):
    conversation = Conversation(model, turns=None)
    return "".join(part.text for part in conversation.say("Hello", **wishes))


@pytest.mark.parametrize("write", [added, generated])
def test_none_is_no_stop_string_and_one_text_is_one(embedded, write):
    whole = write(embedded, sampling=GREEDY, max_tokens=12)
    assert write(embedded, sampling=GREEDY, max_tokens=12, stop=None) == whole
    stop = whole[5:9]
    want = whole[: whole.index(stop)]
    assert write(embedded, sampling=GREEDY, max_tokens=12, stop=stop) == want
    assert write(embedded, sampling=GREEDY, max_tokens=12, stop=(text for text in [stop])) == want


def test_none_is_no_end_and_no_bias_and_no_context(embedded):
    assert added(embedded, sampling=GREEDY, max_tokens=4, ends=None) == generated(
        embedded, sampling=Sampling(temperature=0, bias=None, banned=None, processors=None), max_tokens=4
    )
    assert np.array_equal(embedded.score("Once upon", None), embedded.score("Once upon"))


@pytest.mark.parametrize("write", [added, generated, said])
@pytest.mark.parametrize(
    "wishes",
    [
        {"sampling": {"temperature": 0}},
        {"sampling": 0.5},
        {"constraint": {"type": "object"}},
        {"constraint": "a+"},
        {"prefix_cache": "/tmp"},
        {"stop": 5},
        {"stop": b"x"},
        {"ends": 5},
        {"ends": "x"},
    ],
    ids=str,
)
def test_a_wish_of_another_kind_is_one_sentence_that_names_it(embedded, write, wishes):
    (name,) = wishes
    if write is not added and name == "ends" or write is said and name == "stop":
        pytest.skip("it has no such argument")
    with pytest.raises(OptionError, match=f"^{name}: got .*, want "):
        write(embedded, max_tokens=1, **wishes)


@pytest.mark.parametrize("text", [None, 5, b"hello", ["hello"], "  "])
def test_what_is_no_text_is_not_said(embedded, text):
    with pytest.raises(OptionError, match="^say: "):
        list(Conversation(embedded).say(text))


def test_a_template_is_known_by_its_name(embedded):
    for given in ("raven", "world"):
        assert Conversation(embedded, given).template.name == given
    with pytest.raises(OptionError, match="nowhere"):
        Conversation(embedded, "nowhere")


def test_one_text_is_evaluated_like_a_list_of_one(tmp_path):
    (tmp_path / "a.txt").write_text("Tom went to the park. " * 20)
    (alone,) = evaluate(texts=tmp_path / "a.txt", tasks=None, memory=False)
    (listed,) = evaluate(texts=[tmp_path / "a.txt"], memory=False)
    assert alone.bits_per_byte == listed.bits_per_byte
