"""Chat templates, to the letter."""

import pytest

from rwkv_engine import OptionError
from rwkv_engine.text.chat import Message, template_for, template_named

WORLD = template_named("world")


def test_a_world_prompt_ends_right_behind_the_assistants_colon():
    assert WORLD.render([Message("user", "Hi")]) == "User: Hi\n\nAssistant:"


def test_a_world_prompt_has_the_system_text_and_earlier_turns_in_front():
    messages = [
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("user", "Who?"),
    ]
    assert (
        WORLD.render(messages)
        == "System: Be kind.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Who?\n\nAssistant:"
    )


def test_blank_lines_inside_a_message_become_one_line_end():
    assert WORLD.turn("  a\n\n\nb \n \n c\nd\n") == "User: a\nb\n c\nd\n\nAssistant:"


@pytest.mark.parametrize(
    ("think", "end"),
    [("off", "Assistant:"), ("on", "Assistant: <think"), ("fast", "Assistant: <think>\n</think")],
)
def test_a_think_mode_is_how_the_answer_begins(think, end):
    assert WORLD.turn("Why?", think) == f"User: Why?\n\n{end}"


def test_a_long_thought_is_asked_for_behind_the_question():
    assert WORLD.turn("Why?", "long") == "User: Why? (think a lot)\n\nAssistant: <think"
    assert WORLD.keeps("Why?", "So.", None, True) == "User: Why?\n\nAssistant: So."


def test_tools_are_told_in_front_and_their_outputs_come_from_the_user():
    tools = [{"name": "add", "arguments": {"a": "number"}}]
    told = 'Tools:\n[{"name": "add", "arguments": {"a": "number"}}]\nReturn only a JSON function call.\n\n'
    assert WORLD.opening(None, tools) == f"System: {told}"
    messages = [
        Message("system", "S"),
        Message("user", "1+1?"),
        Message("assistant", "```json\n{}\n```"),
        Message("tool", "2"),
    ]
    assert (
        WORLD.render(messages[:2], tools=tools, call=True)
        == f"System: S\n{told}User: 1+1?\n\nAssistant: ```json"
    )
    assert WORLD.render(messages, tools=tools).endswith(
        "Assistant: ```json\n{}\n```\n\nUser: Function output: 2\n\nAssistant:"
    )


def test_turns_said_one_by_one_are_the_messages_rendered_at_once():
    whole = WORLD.render(
        [Message("system", "S"), Message("user", "A"), Message("assistant", "B"), Message("user", "C")]
    )
    assert WORLD.opening("S") + WORLD.turn("A") + " B" + WORLD.between + WORLD.turn("C") == whole
    assert WORLD.opening(None) == WORLD.opening("  ") == ""


def test_the_pile_models_get_ravens_form():
    assert template_for(50277).turn("Hi") == "Bob: Hi\n\nAlice:"
    assert template_for(65536) is template_for(2048) is WORLD


def test_templates_refuse_what_they_do_not_have():
    with pytest.raises(OptionError, match="world, raven"):
        template_named("llama")
    with pytest.raises(OptionError, match="think"):
        template_named("raven").turn("Hi", "on")
    for messages in ([], [Message("assistant", "Hi")]):
        with pytest.raises(OptionError, match="last"):
            WORLD.render(messages)
