"""`/model`: another model in the middle of a conversation."""

import pytest
from rwkv_engine_cli.chat.commands import obey
from rwkv_engine_cli.chat.running import Chat
from rwkv_engine_cli.preparing import Preparation

import rwkv_engine
from rwkv_engine import Conversation, Sampling
from rwkv_engine.chat import Session, Store
from rwkv_engine.text.chat import template_named

GIVEN = {
    "model": None,
    "weights": None,
    "tokenizer": "world",
    "template": "qa",
    "lora": "lora.pth",
    "lora_alpha": 2.0,
}


@pytest.fixture
def chat(embedded, tmp_path):
    """A kept conversation with everything that can be given for a model, also a model that drafts."""
    conversation = Conversation(embedded, "qa", draft=rwkv_engine.load("embedded-draft"))
    store = Store(tmp_path)
    return Chat(
        embedded,
        conversation.template,
        Session(store, conversation, "here"),
        conversation,
        store,
        Sampling(temperature=0),
        {"max_tokens": 4, "max_thoughts": 4},
        dict(GIVEN),
        print,
        Preparation(embedded),
        load=lambda name: (rwkv_engine.load(name), template_named("world")),
    )


def test_another_model_is_used_without_what_was_given_for_the_model_before(chat):
    list(chat.say("Tom has the ball. Who has the ball?"))
    chat.keep()
    told = obey(chat, "/model embedded-draft").text
    assert "it reads the conversation again" in told
    assert "without --tokenizer, --template, --lora, --lora-alpha, --draft" in told
    assert chat.template.name == "world" and chat.conversation.draft == "auto"
    list(chat.say("Where is Mia?"))
    chat.keep()
    kept = chat.need_store().info("here").settings  # what the conversation is resumed with
    assert kept["model"] == "embedded-draft" and {kept[name] for name in GIVEN if name != "model"} == {None}
    assert "without" not in obey(chat, "/model embedded").text


def test_a_model_that_cannot_be_opened_changes_nothing(chat):
    with pytest.raises(rwkv_engine.EngineError):
        obey(chat, "/model no-such-model")
    assert chat.source == GIVEN and chat.template.name == "qa"
