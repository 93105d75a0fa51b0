"""The commands of a conversation that are about kept conversations: begin, bookmark, fork, switch, list,
export.
"""

from datetime import datetime
from pathlib import Path

from rwkv_engine_cli.talk.outcome import Outcome, extent, named, recap
from rwkv_engine_cli.talk.running import Talk

from rwkv_engine.chat import Session, as_json, as_markdown
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.errors import OptionError
from rwkv_engine.system.files import write_whole


def new(talk: Talk, argument: str) -> Outcome:
    """/new"""
    before, told = talk.name, talk.conversation
    system = told.turns[0].system if told.turns else told.system
    fresh = Conversation(talk.model, talk.template, system=system, think=told.think)
    if talk.store is not None:
        talk.enter(Session(talk.store, fresh))
    else:
        talk.conversation, talk.usage = fresh, None
    kept = f"; {before!r} is kept" if talk.store is not None and told.turns else ""
    return Outcome(f"a new conversation{kept}")


def export(talk: Talk, argument: str) -> Outcome:
    """/export"""
    info = talk.need_store().find(talk.name)
    if info is None:
        raise OptionError("nothing has been said yet")
    path = Path(argument or f"{talk.name}.md").expanduser()
    form = as_json if path.suffix == ".json" else as_markdown
    if path.exists():
        raise OptionError(f"/export: {path} exists; give another name")
    try:
        write_whole(path, [(form(info, talk.conversation.turns).rstrip("\n") + "\n").encode()])
    except OSError as error:
        raise OptionError(f"/export {path}: {error.strerror or error}") from None
    return Outcome(f"written to {path}")


def save(talk: Talk, argument: str) -> Outcome:
    """/save"""
    _current(talk).fork(named(argument, "/save"), talk.settings())
    talk.keep()  # last, so that it is this conversation that `rwkv chat -c` goes on with
    return Outcome(f"kept as {argument!r}; /load {argument} comes back to this point")


def load(talk: Talk, argument: str) -> Outcome:
    """/load"""
    store = talk.need_store()
    kept = Session.open(store, store.info(named(argument, "/load")), talk.model, talk.template)
    talk.enter(
        Session(store, kept.conversation, store.free_name(argument))
    )  # a copy, kept from its next turn on
    return Outcome(f"a copy of {argument!r}, {recap(talk.conversation)}")


def fork(talk: Talk, argument: str) -> Outcome:
    """/fork"""
    talk.keep()
    before = talk.name
    talk.enter(_current(talk).fork(named(argument, "/fork"), talk.settings()))
    return Outcome(f"now in {argument!r}; {before!r} stays as it is")


def switch(talk: Talk, argument: str) -> Outcome:
    """/switch"""
    store = talk.need_store()
    info = store.info(named(argument, "/switch"))
    talk.enter(Session.open(store, info, talk.model, talk.template))
    talk.keep()
    return Outcome(f"now in {argument!r}, {recap(talk.conversation)}")


def sessions(talk: Talk, argument: str) -> Outcome:
    """/sessions"""
    infos = talk.need_store().infos()
    if not infos:
        return Outcome("no session is kept yet")
    width = max(len(info.name) for info in infos)
    rows = []
    for info in infos:
        here = "*" if info.name == talk.name else " "
        when = datetime.fromtimestamp(info.changed).strftime("%Y-%m-%d %H:%M")
        rows.append(f"{here} {info.name:<{width}}  {when}  {extent(info.turns, info.tokens)}")
    return Outcome("\n".join(rows))


def _current(talk: Talk) -> Session:
    """The session to copy. Raises OptionError if nothing has been said."""
    if not talk.conversation.turns:
        raise OptionError("nothing has been said yet")
    store = talk.need_store()
    return talk.session or Session(store, talk.conversation)
