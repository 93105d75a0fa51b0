"""Conversations: what history holds after each thing that can be done, and what it costs."""

import numpy as np
import pytest
from scripted_model import ScriptedModel, text_of

from rwkv_engine import OptionError, Sampling
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.chat.history import RECENT, reread, worth_keeping
from rwkv_engine.text.chat import template_named

GREEDY = Sampling(temperature=0)
WORLD = template_named("world")
ANSWERS = {
    "Hi": " Hello.\0",
    "Who?": " I am Bot.\n\nUser: ",
    "Why?": " <think>\nHm, let me see.\n</think>\n\nBecause.\0",
    "Why? (think a lot)": " <think>\nHm. Hmm.\n</think>\nBecause.\0",
    "What?": " <think></think>\nThat.\0",
    "Long?": " one two three four five six seven eight nine ten\0",
}


def said(parts):
    return "".join(part.text for part in parts if part.kind == "answer")


@pytest.fixture
def conversation():
    return Conversation(ScriptedModel(ANSWERS), WORLD)


def test_history_is_the_template_with_what_was_said(conversation):
    conversation.system = "Be kind."
    assert said(conversation.say("Hi", GREEDY)) == "Hello."
    assert said(conversation.say("Who?", GREEDY)) == "I am Bot."
    assert text_of(conversation.state()) == (
        "System: Be kind.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Who?\n\nAssistant: I am Bot."
    )
    assert conversation.model.tokenizer.decode(
        [t for turn in conversation.turns for t in turn.tokens]
    ) == text_of(conversation.state())
    assert [(turn.user, turn.answer, turn.stop) for turn in conversation.turns] == [
        ("Hi", "Hello.", "end"),
        ("Who?", "I am Bot.", "stop"),
    ]


@pytest.mark.parametrize(
    ("think", "question", "thought", "answer"),
    [
        ("off", "Why?", "Hm, let me see.", "Because."),
        ("on", "Why?", "Hm, let me see.", "Because."),
        ("long", "Why?", "Hm. Hmm.", "Because."),
        ("fast", "What?", "", "That."),
    ],
)
def test_a_thought_is_shown_and_is_not_part_of_history(think, question, thought, answer):
    answers = dict(ANSWERS)
    if think == "fast":
        answers["What?"] = " <think>\n</think>\nThat.\0"
    conversation = Conversation(ScriptedModel(answers), WORLD, think=think)
    list(conversation.say("Hi", GREEDY))
    parts = list(conversation.say(question, GREEDY))
    assert (
        "".join(part.text for part in parts if part.kind == "thinking")
        == thought
        == conversation.turns[-1].thinking
    )
    assert said(parts) == answer == conversation.turns[-1].answer
    assert text_of(conversation.state()).endswith(f"User: {question}\n\nAssistant: {answer}")
    assert "think" not in text_of(conversation.state())
    assert conversation.model.tokenizer.decode(
        [t for turn in conversation.turns for t in turn.tokens]
    ) == text_of(conversation.state())


def test_taking_back_asking_again_and_dropping_a_thought_read_at_most_one_turn_again():
    conversation = Conversation(ScriptedModel(ANSWERS), WORLD, think="on")
    for _ in range(20):
        list(conversation.say("Why?", GREEDY))
    turn = len(conversation.turns[-1].tokens)
    whole = conversation.tokens
    prompt, answer = (
        len("\n\nUser: Why?\n\nAssistant: <think"),
        len(">\nHm, let me see.\n</think>\n\nBecause."),
    )
    for act in (
        lambda: conversation.say("Why?", GREEDY),
        lambda: conversation.retry(GREEDY),
        lambda: conversation.edit("Why?", GREEDY),
    ):
        before = conversation.model.fed
        list(act())
        assert conversation.model.fed - before <= prompt + answer + turn < whole / 4
    before = conversation.model.fed
    conversation.undo(15)
    conversation.state()
    assert conversation.model.fed - before <= turn


def test_undo_returns_to_what_was_before_and_tells_the_system_text_again(conversation):
    list(conversation.say("Hi", GREEDY))
    before = conversation.state()
    conversation.system = "Be brief."
    list(conversation.say("Who?", GREEDY))
    list(conversation.say("Hi", GREEDY))
    assert [turn.user for turn in conversation.undo(2)] == ["Who?", "Hi"]
    assert conversation.state() == before
    list(conversation.say("Who?", GREEDY))
    assert "System: Be brief.\n\nUser: Who?" in text_of(conversation.state())
    for wrong in (0, 3):
        with pytest.raises(OptionError, match="2 turns"):
            conversation.undo(wrong)


def test_edit_and_retry_replace_the_last_turn(conversation):
    list(conversation.say("Hi", GREEDY))
    list(conversation.say("Who?", GREEDY))
    list(conversation.edit("What?", GREEDY))
    assert [turn.user for turn in conversation.turns] == ["Hi", "What?"]
    list(conversation.retry(GREEDY))
    assert text_of(conversation.state()) == "User: Hi\n\nAssistant: Hello.\n\nUser: What?\n\nAssistant: That."
    assert conversation.turns[-1].tries == 1


def test_a_reader_who_leaves_keeps_what_was_said_and_no_more(conversation):
    parts = conversation.say("Long?", GREEDY)
    heard = ""
    for part in parts:
        heard += part.text
        if heard == "one two":
            parts.close()
    assert (conversation.turns[-1].answer, conversation.turns[-1].stop) == ("one two", None)
    assert text_of(conversation.state()) == "User: Long?\n\nAssistant: one two"
    assert said(conversation.say("Hi", GREEDY)) == "Hello."


def test_leaving_before_the_answer_begins_changes_nothing(conversation):
    list(conversation.say("Hi", GREEDY))
    before, turns = conversation.state(), list(conversation.turns)
    parts = conversation.say("x" * 1000, GREEDY)
    assert next(parts).kind == "reading"
    parts.close()
    parts = conversation.edit("x" * 1000, GREEDY)
    next(parts)
    parts.close()
    assert conversation.turns == turns and conversation.state() == before


def test_a_model_that_fails_in_the_middle_of_an_answer_leaves_the_conversation_as_it_was(conversation):
    list(conversation.say("Hi", GREEDY))
    before, turns = conversation.state(), list(conversation.turns)
    parts = conversation.say("Long?", GREEDY)
    next(parts), next(parts)
    working = conversation.model.feed
    conversation.model.feed = None  # calling it is a TypeError
    with pytest.raises(TypeError):
        list(parts)
    conversation.model.feed = working
    assert conversation.turns == turns and conversation.state() == before


def test_forks_go_their_own_ways(conversation):
    list(conversation.say("Hi", GREEDY))
    twin = conversation.fork()
    list(twin.say("Who?", GREEDY))
    list(conversation.say("What?", GREEDY))
    assert text_of(twin.state()).endswith("I am Bot.") and text_of(conversation.state()).endswith("That.")
    twin.undo(2)
    assert len(conversation.turns) == 2 and twin.turns == [] and twin.tokens == 0


def test_another_template_reads_the_same_texts_anew(conversation):
    list(conversation.say("Hi", GREEDY))
    list(conversation.say("Why?", GREEDY))
    other = Conversation(
        conversation.model,
        template_named("qa"),
        turns=reread(conversation.turns, conversation.model.tokenizer, template_named("qa")),
    )
    assert text_of(other.state()) == "Question: Hi\n\nAnswer: Hello.\n\nQuestion: Why?\n\nAnswer: Because."


def test_only_what_can_be_meant_is_accepted(conversation):
    for wrong in (
        lambda: conversation.say(" \n"),
        lambda: conversation.retry(),
        lambda: conversation.edit("x"),
        lambda: conversation.set_think("deep"),
    ):
        with pytest.raises(OptionError):
            wrong()
    list(conversation.say("Hi", GREEDY))
    with pytest.raises(OptionError, match="empty"):
        conversation.edit("")
    with pytest.raises(OptionError, match="qa has off"):
        Conversation(conversation.model, template_named("qa"), think="on")


def test_few_old_states_are_kept_and_one_that_is_dropped_is_never_wanted_again():
    for number in range(0, 600, 7):
        wanted = [worth_keeping(number, count) for count in range(number + 1, 3001)]
        assert wanted == sorted(wanted, reverse=True)
    kept = [n for n in range(3000) if worth_keeping(n, 3000)]
    assert set(range(3000 - RECENT, 3000)) <= set(kept) and len(kept) < 80
    steps = np.diff([0, *kept])
    assert all(step <= 1 + (3000 - at) / 2 for step, at in zip(steps, kept, strict=True))


def probe(conversation):
    """The logits that follow the conversation and one more token, to the bit."""
    return conversation.model.feed([11], conversation.state()).tobytes()


def test_undo_of_20_turns_restores_the_logits_bit_for_bit(embedded):
    conversation = Conversation(embedded, WORLD)
    seen = [probe(conversation)]
    for number in range(22):
        list(
            conversation.say(
                f"Tom has {number} cats. How many cats does Tom have?", Sampling(seed=number), 12
            )
        )
        seen.append(probe(conversation))
    assert len(set(seen)) == len(seen)
    for undone in range(1, 21):
        conversation.undo()
        assert probe(conversation) == seen[22 - undone]


def test_a_state_that_is_no_longer_kept_is_read_again(embedded):
    conversation = Conversation(embedded, WORLD)
    for name in ("Tom", "Mia", "Ben"):
        list(conversation.say(f"{name} has the ball. Who has the ball?", GREEDY, 12))
    kept = conversation.state()
    conversation.release(0)
    again = conversation.state()
    assert again.position == kept.position == conversation.tokens
    np.testing.assert_allclose(again.block, kept.block, rtol=1e-3, atol=1e-3)


def test_nothing_said_in_one_conversation_reaches_another(embedded):
    """Two conversations in turns, and a third after both: each has the numbers of a conversation held alone, to the bit."""

    def alone(names):
        conversation = Conversation(embedded, WORLD)
        for name in names:
            list(conversation.say(f"{name} is in the park. Where is {name}?", GREEDY, 12))
        return probe(conversation)

    conversations = [Conversation(embedded, WORLD) for _ in range(2)]
    names = [("Tom", "Mia", "Ben"), ("Anna", "Leo", "Tom")]
    for pair in zip(*names, strict=True):
        for conversation, name in zip(conversations, pair, strict=True):
            list(conversation.say(f"{name} is in the park. Where is {name}?", GREEDY, 12))
    assert [probe(conversation) for conversation in conversations] == [alone(each) for each in names]
    fresh = Conversation(embedded, WORLD)
    assert fresh.state() == embedded.new_state()


def test_a_seed_is_moved_on_by_each_try(embedded):
    conversation = Conversation(embedded, WORLD)
    wild = Sampling(temperature=2.0, top_p=1.0, seed=5)
    first = said(conversation.say("Tell me a story.", wild, 20))
    again = said(conversation.retry(wild, 20))
    other = Conversation(embedded, WORLD)
    assert (
        said(other.say("Tell me a story.", Sampling(temperature=2.0, top_p=1.0, seed=6), 20))
        == again
        != first
    )


class Forgetful:
    """A template that cannot write down a turn a second time."""

    asked = 0

    def __getattr__(self, name):
        return getattr(WORLD, name)

    def keeps(self, text, answer, system, first):
        self.asked += 1
        if self.asked > 1:
            raise OptionError("the template failed")
        return WORLD.keeps(text, answer, system, first)


def test_an_error_in_the_callers_loop_is_not_followed_by_one_of_closing_the_answer(monkeypatch):
    behind = []
    monkeypatch.setattr("sys.unraisablehook", behind.append)

    def caller():
        for part in Conversation(ScriptedModel(ANSWERS), Forgetful(), think="on").say("Why?", GREEDY):
            if part.text:
                raise ZeroDivisionError("the caller's own")

    with pytest.raises(ZeroDivisionError) as told:
        caller()
    del told
    assert not behind
