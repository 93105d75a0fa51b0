"""The commands of a conversation that are about kept conversations: begin, bookmark, fork, switch, list,
export.
"""

from datetime import datetime
from pathlib import Path

from rwkv_engine_cli.chat.outcome import Outcome, extent, named, recap
from rwkv_engine_cli.chat.running import Chat

from rwkv_engine.chat import Session, as_json, as_markdown
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.errors import OptionError
from rwkv_engine.system.files import write_whole


def new(chat: Chat, argument: str) -> Outcome:
    """/new"""
    before, told = chat.name, chat.conversation
    system = told.turns[0].system if told.turns else told.system
    fresh = Conversation(chat.model, chat.template, system=system, think=told.think)
    if chat.store is not None:
        chat.enter(Session(chat.store, fresh))
    else:
        chat.conversation, chat.usage = fresh, None
    kept = f"; {before!r} is kept" if chat.store is not None and told.turns else ""
    return Outcome(f"a new conversation{kept}")


def export(chat: Chat, argument: str) -> Outcome:
    """/export"""
    info = chat.need_store().find(chat.name)
    if info is None:
        raise OptionError("nothing has been said yet")
    path = Path(argument or f"{chat.name}.md").expanduser()
    form = as_json if path.suffix == ".json" else as_markdown
    if path.exists():
        raise OptionError(f"/export: {path} exists; give another name")
    try:
        write_whole(path, [(form(info, chat.conversation.turns).rstrip("\n") + "\n").encode()])
    except OSError as error:
        raise OptionError(f"/export {path}: {error.strerror or error}") from None
    return Outcome(f"written to {path}")


def save(chat: Chat, argument: str) -> Outcome:
    """/save"""
    _current(chat).fork(named(argument, "/save"), chat.settings())
    chat.keep()  # last, so that it is this conversation that `rwkv chat -c` goes on with
    return Outcome(f"kept as {argument!r}; /load {argument} comes back to this point")


def load(chat: Chat, argument: str) -> Outcome:
    """/load"""
    store = chat.need_store()
    kept = Session.open(store, store.info(named(argument, "/load")), chat.model, chat.template)
    chat.enter(
        Session(store, kept.conversation, store.free_name(argument))
    )  # a copy, kept from its next turn on
    return Outcome(f"a copy of {argument!r}, {recap(chat.conversation)}")


def fork(chat: Chat, argument: str) -> Outcome:
    """/fork"""
    chat.keep()
    before = chat.name
    chat.enter(_current(chat).fork(named(argument, "/fork"), chat.settings()))
    return Outcome(f"now in {argument!r}; {before!r} stays as it is")


def switch(chat: Chat, argument: str) -> Outcome:
    """/switch"""
    store = chat.need_store()
    info = store.info(named(argument, "/switch"))
    chat.enter(Session.open(store, info, chat.model, chat.template))
    chat.keep()
    return Outcome(f"now in {argument!r}, {recap(chat.conversation)}")


def sessions(chat: Chat, argument: str) -> Outcome:
    """/sessions"""
    infos = chat.need_store().infos()
    if not infos:
        return Outcome("no session is kept yet")
    width = max(len(info.name) for info in infos)
    rows = []
    for info in infos:
        here = "*" if info.name == chat.name else " "
        when = datetime.fromtimestamp(info.changed).strftime("%Y-%m-%d %H:%M")
        rows.append(f"{here} {info.name:<{width}}  {when}  {extent(info.turns, info.tokens)}")
    return Outcome("\n".join(rows))


def _current(chat: Chat) -> Session:
    """The session to copy. Raises OptionError if nothing has been said."""
    if not chat.conversation.turns:
        raise OptionError("nothing has been said yet")
    store = chat.need_store()
    return chat.session or Session(store, chat.conversation)
