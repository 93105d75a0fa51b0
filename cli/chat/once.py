"""One question from the shell: its answer as text, as JSON, or only the code in it."""

import json

from rwkv_engine_cli.chat.loop import limit_note, until_interrupt
from rwkv_engine_cli.chat.outcome import first_code
from rwkv_engine_cli.chat.running import Chat
from rwkv_engine_cli.output import Stream, complain, echo
from rwkv_engine_cli.usage import show_usage, usage_json

from rwkv_engine.errors import OptionError


def answer_once(chat: Chat, question: str, *, extract: bool, as_json: bool, verbose: bool) -> None:
    """Answer one question and keep it, if anything is kept.

    Raises KeyboardInterrupt if ctrl-C ended the answer, and OptionError if it does not fit the constraint.
    """
    out = None if extract or as_json else Stream()
    chat.preparation.wait()
    with until_interrupt(chat.say(question)) as parts:
        for part in parts:
            if out is not None and part.kind == "answer" and part.text:
                out.write(part.text)
    chat.keep()
    if not chat.conversation.turns:
        raise KeyboardInterrupt
    turn = chat.conversation.turns[-1]
    if as_json:
        usage = usage_json(chat.usage) if chat.usage else {}
        whole = {"answer": turn.answer, "thinking": turn.thinking, "stop": turn.stop or "cancelled", **usage}
        echo(json.dumps(whole, ensure_ascii=False))
    else:
        echo(first_code(turn.answer) if extract else "")
    note = limit_note(chat)
    if note and turn.stop != "cut":
        complain(note)
    if verbose and chat.usage is not None:
        show_usage(chat.usage, turn.stop)
    if turn.stop is None:
        raise KeyboardInterrupt
    if turn.stop == "cut":  # no other program should take it for what it asked for
        raise OptionError(note)
