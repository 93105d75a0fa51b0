"""Chat templates with special tokens: the template's are special, nobody else's are, and one of them ends an
answer.
"""

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from json_tokenizers import byte_level, write
from test_other_tokenizers import Repeats

from rwkv_engine import OptionError, Sampling
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.chat.history import reread
from rwkv_engine.text import Bytes, World, find_tokenizer
from rwkv_engine.text.bpe import Json
from rwkv_engine.text.chat import template_named
from rwkv_engine.text.jinja_template import JinjaTemplate
from rwkv_engine.text.markers import ids_asked, ids_kept, turn_ends
from rwkv_engine.text.templates import find_template, packable_template

CHATML = JinjaTemplate(
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MADE = json.dumps(byte_level(NAMES, words=["user", "assistant"]))
TOKENIZER, LIBRARY = Json.of_text(MADE, "t"), tokenizers.Tokenizer.from_str(MADE)
END, START, OVER = (LIBRARY.token_to_id(name) for name in NAMES)


def test_the_ids_of_a_prompt_are_those_of_the_library():
    prompt = CHATML.asks("hi", "off", "Be kind.", True)
    ids = ids_asked(TOKENIZER, CHATML, "hi", "off", "Be kind.", True)
    assert ids == LIBRARY.encode(prompt, add_special_tokens=False).ids and ids.count(START) == 3
    kept = ids_kept(TOKENIZER, CHATML, "hi", "Hello.", "Be kind.", True)
    assert kept == ids + TOKENIZER.encode("Hello.")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([*NAMES, "<|im_", "end|>", "<", "|", ">", " ", "a", "\n", "\U000f0000"]), max_size=8
    )
)
def test_what_a_user_types_is_never_a_special_token(pieces):
    text = "x" + "".join(pieces) + "x"
    plain, ids = (ids_asked(TOKENIZER, CHATML, t, "off", t, True) for t in ("xx", text))
    assert [i for i in ids if i in (END, START, OVER)] == [i for i in plain if i in (END, START, OVER)]
    assert LIBRARY.decode(ids, skip_special_tokens=False) == CHATML.asks(text, "off", text, True)
    kept = ids_kept(TOKENIZER, CHATML, text, text, None, True)
    assert kept.count(START) == 2 and LIBRARY.decode(kept, skip_special_tokens=False).endswith(text.strip())


def test_the_token_behind_an_answer_ends_it_and_goes_into_the_next_prompt():
    assert turn_ends(TOKENIZER, CHATML) == {OVER, START}
    hello = TOKENIZER.encode("Hello")
    conversation = Conversation(Repeats(TOKENIZER, [*hello, OVER, *hello, END]), CHATML)
    parts = [part for part in conversation.say("hi", Sampling(temperature=0)) if part.step]
    assert [part.step.token for part in parts] == [*hello, OVER] and parts[-1].step.stop == "end"
    list(conversation.say("<|im_end|>", Sampling(temperature=0)))
    assert [turn.answer for turn in conversation.turns] == ["Hello", "Hello"]
    fed = [token for turn in conversation.turns for token in turn.tokens]
    assert [fed.count(token) for token in (START, OVER, END)] == [4, 3, 0]
    assert [turn.tokens for turn in reread(conversation.turns, TOKENIZER, CHATML)] == [
        turn.tokens for turn in conversation.turns
    ]


@pytest.mark.parametrize("tokenizer", [Bytes(), World(), TOKENIZER])
@pytest.mark.parametrize("template", [template_named("world"), template_named("raven"), CHATML])
def test_without_special_tokens_a_prompt_is_its_text(tokenizer, template):
    prompt = template.asks("Hi there", "off", "S", False)
    if tokenizer is not TOKENIZER or template is not CHATML:
        assert ids_asked(tokenizer, template, "Hi there", "off", "S", False) == tokenizer.encode(prompt)
        assert turn_ends(tokenizer, template) == frozenset()


def test_the_end_in_the_templates_of_world_models_is_token_0():
    template = JinjaTemplate(
        "{{ '<|rwkv_tokenizer_end_of_text|>' }}{% for m in messages %}User: {{ m.content }}\n\n{% endfor %}"
    )
    typed = "<|rwkv_tokenizer_end_of_text|>"
    ids = ids_asked(World(), template, typed, "off", None, True)
    assert ids == [0, *World().encode(f"User: {typed}\n\n")]


def test_a_models_own_template_is_found_in_its_folder(tmp_path):
    assert find_template(300, folder=tmp_path).name == "world"
    source = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}{{ eos_token }}"
    config = {"bos_token": {"content": "<s>"}, "eos_token": '"\u00e9"', "chat_template": source}
    tokenizer = find_tokenizer(400, None, write(tmp_path, byte_level(NAMES), tokenizer_config=config))
    assert tokenizer.end == 256
    found = find_template(300, folder=tmp_path)
    assert found.asks("a", "off", None, True) == '<s>[a]"\u00e9"' and "tokenizer_config.json" in found.name
    packed = find_template(300, packable_template(None, 300, tmp_path))
    assert packed.asks("a", "off", None, True) == '<s>[a]"\u00e9"'
    assert find_template(300, "raven", folder=tmp_path).name == "raven"
    assert find_template(300, None, "qa", tmp_path).name == packable_template("qa", 300, tmp_path) == "qa"
    config["chat_template"] = [
        {"name": "tool_use", "template": "no"},
        {"name": "default", "template": source},
    ]
    write(tmp_path, byte_level(), tokenizer_config=config)
    assert find_template(300, folder=tmp_path).asks("a", "off", None, True).startswith("<s>[a]")
    (tmp_path / "chat_template.jinja").write_text("\ufeff{{ messages[0].content }}!", "utf-8")
    assert find_template(300, folder=tmp_path).asks("a", "off", None, True) == "a!"
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(OptionError, match="chat_template.jinja: line 1"):
        find_template(300, folder=tmp_path)
