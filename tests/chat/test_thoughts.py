"""The limit of a thought, which is not the answer's."""

import pytest
from scripted_model import ScriptedModel, text_of

from rwkv_engine import OptionError, Sampling
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.text.chat import template_named

GREEDY, WORLD = Sampling(temperature=0), template_named("world")


def usage(parts):
    return [part.step.usage for part in parts if part.step][-1]


@pytest.mark.parametrize("think", ["off", "on"])
def test_a_thought_does_not_count_as_answer(think):
    thought = " <think>\none two three four five six\n</think>"
    conversation = Conversation(ScriptedModel({"Why?": f"{thought}\nBecause of all.\0"}), WORLD, think=think)
    used = usage(conversation.say("Why?", GREEDY, len("\nBecause")))
    assert (conversation.turns[-1].answer, conversation.turns[-1].stop) == ("Because", "length")
    assert used.thoughts == len(thought) - (len(" <think") if think == "on" else 0)
    assert used.tokens == used.thoughts + len("\nBecause")


@pytest.mark.parametrize("think", ["off", "on"])
@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        ("\none two", "one two"),
        ("\none two\n</thi", "one two"),  # the model was closing it
        ("\ntwo ?", "two \u20ac"),  # a character is not cut
    ],
)
def test_a_thought_that_is_too_long_is_closed_and_the_answer_begins(think, limit, kept):
    longest = "two \u20ac and more" if "\u20ac" in kept else "one two\n</thinking is long> and so on"
    answers = {"Why?": (f" <think>\n{longest}", f" <think>\n{kept}\n</think>\nIt is so.\0")}
    conversation = Conversation(ScriptedModel(answers), WORLD, think=think)
    most = len(limit) + (len(" <think>") if think == "off" else len(">"))
    used = usage(conversation.say("Why?", GREEDY, 30, max_thoughts=most))
    turn = conversation.turns[-1]
    assert (turn.thinking, turn.answer, turn.stop) == (kept, "It is so.", "end")
    assert most < used.thoughts <= most + len("\n</think>\n") + 2
    assert text_of(conversation.state()).endswith("Assistant: It is so."), "history has no thought"
    with pytest.raises(OptionError, match="max_thoughts"):
        conversation.say("Why?", max_thoughts=0)
