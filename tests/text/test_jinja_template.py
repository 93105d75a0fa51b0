"""Jinja templates: what they are given, how a conversation goes on with one, and what they may not do."""

import time

import pytest
from scripted_model import ScriptedModel as Model
from scripted_model import text_of

from rwkv_engine import OptionError, Sampling
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.text.chat import Message, template_named
from rwkv_engine.text.jinja_template import JinjaTemplate
from rwkv_engine.text.templates import find_template, packable_template

CHATML = """\
{%- for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content | trim }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking %}<think>
{% endif %}
{%- endif %}"""
WORLD = """\
{%- for m in messages %}{{ m.role | capitalize }}: {{ m.content }}{{ "\\n\\n" if not loop.last or add_generation_prompt }}{% endfor %}
{%- if add_generation_prompt %}Assistant:{% endif %}"""


def test_a_chat_template_writes_down_a_list_of_messages():
    messages = [
        Message("system", "S"),
        Message("user", " A "),
        Message("assistant", "B"),
        Message("user", "C"),
    ]
    text = JinjaTemplate(CHATML).render(messages)
    assert text == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
        "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n"
    )
    assert JinjaTemplate(CHATML).stops == ("<|im_end|>", "<|im_start|>")
    assert (
        JinjaTemplate(
            "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", bos="<s>", eos="</s>"
        ).render(messages)
        == "<s>S</s>"
    )


def test_turn_by_turn_is_the_messages_rendered_at_once():
    template = JinjaTemplate(CHATML)
    whole = template.render(
        [Message("system", "S"), Message("user", "A"), Message("assistant", "B"), Message("user", "C")]
    )
    assert template.asks("A", "off", "S", True) + "B" + template.asks("C", "off", None, False) == whole
    assert template.keeps("A", "B", "S", True) == template.asks("A", "off", "S", True) + "B"
    assert template.asks("C", "on", None, False).endswith("<think>\n") and "think" not in template.keeps(
        "C", "D", None, False
    )


def test_a_conversation_follows_it_and_drops_thoughts():
    model = Model({})
    model._next = lambda text: next(
        (
            ord(full[len(text)])
            for full in expected
            if full.encode().startswith(text) and len(full) > len(text)
        ),
        0,
    )
    start = "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n"
    expected = [
        start + "<think>\nhm</think>\nB<|im_end|>",
        start + "B<|im_end|>\n<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\nD\0",
    ]

    conversation = Conversation(model, JinjaTemplate(CHATML), think="on")
    list(conversation.say("A", Sampling(temperature=0)))
    assert (conversation.turns[0].thinking, conversation.turns[0].answer) == ("hm", "B")
    assert text_of(conversation.state()) == start + "B"
    conversation.set_think("off")
    list(conversation.say("C", Sampling(temperature=0)))
    assert text_of(conversation.state()) == expected[1][:-1]


def test_an_answer_ends_where_the_template_begins_the_next_question():
    assert JinjaTemplate(WORLD).stops == ("\n\nUser:",)
    assert JinjaTemplate("{{ messages[0].content }}").stops == ()
    model = Model({"A": " B\n\nUser: A\n\nAssistant: B\0"})
    conversation = Conversation(model, JinjaTemplate(WORLD))
    list(conversation.say("A", Sampling(temperature=0)))
    assert (conversation.turns[0].answer, conversation.turns[0].stop) == ("B", "stop")


def test_worlds_form_in_jinja_is_worlds_form():
    jinja, row = JinjaTemplate(WORLD), template_named("world")
    for first, system in ((True, "S"), (True, None), (False, None), (False, "S")):
        assert jinja.asks("Q", "off", system, first) == row.asks("Q", "off", system, first)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% for %}", "line 1"),
        ("{{ raise_exception('only two roles') }}", "only two roles"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely"),
        ("{{ messages[7].content.x.y }}", "undefined|no element"),
        ("{{ 1 / 0 }}", "zero"),
        ("{{ messages | length }}", "assistant said"),
        ("{{ range(10 ** 9) | list }}", "[Rr]ange|number"),
    ],
)
def test_a_template_that_fails_or_reaches_outside_is_refused_in_one_sentence(source, why):
    with pytest.raises(OptionError, match=why):
        JinjaTemplate(source).asks("Q", "off", None, False)


def test_a_choice_wins_over_the_models_own_and_that_over_the_default(tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text(CHATML)
    assert find_template(65536).name == "world" and find_template(50277).name == "raven"
    assert find_template(65536, "qa").name == "qa"
    assert find_template(65536, CHATML).asks("A", "off", None, True).startswith("<|im_start|>user\nA")
    assert find_template(65536, CHATML, "raven").name == "raven"
    assert find_template(65536, "qa", str(file)).name == "t.jinja"
    assert packable_template("qa") == "qa" and packable_template(str(file)) == CHATML
    with pytest.raises(OptionError, match="world, raven"):
        find_template(65536, None, "no-such-file")
    (tmp_path / "b").write_bytes(b"\xff")
    with pytest.raises(OptionError, match="UTF-8"):
        find_template(65536, None, str(tmp_path / "b"))


def test_a_template_packed_with_a_model_is_the_models_own(tmp_path, checkpoints, tokenizer_file):
    import rwkv_engine
    from rwkv_engine.checkpoints import open_checkpoint

    source, _ = checkpoints("7")
    (tmp_path / "t.jinja").write_text(CHATML)
    for choice, inside in ((None, "world"), ("qa", "qa"), (str(tmp_path / "t.jinja"), CHATML)):
        target = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        rwkv_engine.quantize(source, target, tokenizer=tokenizer_file, template=choice)
        assert open_checkpoint(target).packing.template == inside
    with pytest.raises(OptionError, match="template"):
        rwkv_engine.quantize(source, tmp_path / "no", tokenizer=tokenizer_file, template="llama")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in messages recursive %}{{ loop(range(99999)) }}{% endfor %}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ [0] * 10 ** 10 }}",
        "{{ 'x' | center(10 ** 10) }}",
        "{{ 'x'.ljust(10 ** 10) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ ('x' * 900000).replace('x', 'y' * 900000) }}",
        "{{ ('x' * 900000) | replace('x', 'y' * 900000) }}",
        "{{ ('y' * 900000).join(['a'] * 900000) }}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ raise_exception('x' * 100000) }}",
        "{% set x = 1 %}" * 30 + "{% for a in b %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "(" * 3000 + ")" * 3000 + " }}",
        "{{ " + "-" * 30000 + "1 }}",
        "{{ 'x'.__init__.__globals__ }}",
        "{{ lipsum(n=9999999) }}",
        "{{ messages | map('nothing') | list }}",
        "{% include 'x' %}",
        "{{ 'x\ud83d' | unknown }}",
    ],
)
def test_a_template_that_is_too_much_or_no_code_is_refused_soon_in_one_sentence(source):
    start = time.perf_counter()
    with pytest.raises(OptionError) as caught:
        JinjaTemplate(source).asks("Q", "off", None, True)
    assert len(str(caught.value)) <= 500 and str(caught.value).isprintable()
    assert time.perf_counter() - start < 5


def test_a_template_may_mark_what_is_for_training_and_write_json_as_it_is():
    source = "{% generation %}{{ messages[0] | tojson }}{% endgeneration %}"
    assert JinjaTemplate(source).asks("é", "off", None, True) == '{"role": "user", "content": "é"}'


def test_a_user_may_type_whatever_stands_for_an_answer():
    template = JinjaTemplate(CHATML)
    for letter in ("\ue0f0", "\U000f0000", "\U000f0001"):
        assert template.asks(letter, "off", None, False).count(letter) == 1
        assert template.keeps(letter, "B", letter, False).count(letter) == 2


def test_a_template_file_may_begin_with_a_byte_order_mark_and_names_may_be_long(tmp_path):
    (tmp_path / "t.jinja").write_text("\ufeff" + CHATML, "utf-8")
    assert find_template(1, None, str(tmp_path / "t.jinja")).asks("a", "off", None, True).startswith("<|im")
    assert packable_template(str(tmp_path / "t.jinja")) == CHATML
    for name in ("x" * 9000, "a\0b"):
        with pytest.raises(OptionError) as caught:
            find_template(1, None, name)
        assert len(str(caught.value)) <= 500
