"""`Session`: a conversation that is kept under a name, turn by turn."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.chat.database import Info
from rwkv_engine.chat.history import reread
from rwkv_engine.chat.store import Store, checked_name, name_for
from rwkv_engine.errors import SessionError, StateError
from rwkv_engine.state import State
from rwkv_engine.text.chat import Template

if TYPE_CHECKING:  # listing conversations needs no model, and a model is slow to import
    from rwkv_engine.model import Model


class _StateFiles:
    """A store's state files as a conversation's shelf."""

    __slots__ = ("_model", "_store")

    def __init__(self, store: Store, model: "Model") -> None:
        self._store, self._model = store, model

    def fetch(self, uid: str) -> State | None:
        path = self._store.state_file(uid)
        try:
            return self._model.load_state(path) if path.exists() else None
        except StateError:
            return None  # damaged: the turn is read again, which is always right


class Session:
    """A conversation and its place in a store.

    name          None until it is first kept without one: it is then named after its first words.
    conversation  to conversation with; `keep` after each turn.
    """

    __slots__ = ("_id", "_revision", "_stored", "conversation", "name", "store")

    def __init__(self, store: Store, conversation: Conversation, name: str | None = None) -> None:
        self.store, self.conversation = store, conversation
        self.name = None if name is None else checked_name(name)
        self._id: int | None = None
        self._revision = 0
        self._stored: list[str] = []

    @classmethod
    def open(
        cls, store: Store, info: Info, model: "Model", template: Template, read_again: bool = False
    ) -> "Session":
        """Go on with a kept session.

        read_again  accept another model than the one it was begun with: all of it is then read before the
                    next answer.
        Raises      SessionError for another model otherwise.
        """
        turns = store.turns(info)
        if info.fingerprint != model.fingerprint:
            if not read_again:
                raise SessionError(
                    f"session {info.name!r} was begun with another model (fingerprint {info.fingerprint[:12]}, this one has "
                    f"{model.fingerprint[:12]}); give that model with -m, or --read-again to have this one read it all"
                )
            turns = reread(turns, model.tokenizer, template)
        session = cls(
            store, Conversation(model, template, turns=turns, shelf=_StateFiles(store, model)), info.name
        )
        session._id, session._revision = info.id, info.revision
        session._stored = [] if info.fingerprint != model.fingerprint else [turn.uid for turn in turns]
        return session

    @property
    def kept(self) -> bool:
        """Whether it is in the store."""
        return self._id is not None

    def keep(self, settings: Mapping[str, Any]) -> bool:
        """Put what was said since the last time into the store: first the rows, then the states.

        Nothing said: nothing kept.

        Returns False if another process had changed the session meanwhile: this conversation then goes on
        under a new name.
        Raises  SessionError; what was kept before stays as it was.
        """
        turns, uids = self.conversation.turns, [turn.uid for turn in self.conversation.turns]
        if self._id is None and not turns:
            return True
        model = self._model()
        same = next(
            (n for n, (a, b) in enumerate(zip(uids, self._stored, strict=False)) if a != b),
            min(len(uids), len(self._stored)),
        )
        alone = True
        if self._id is not None:
            alone = self.store.move_on(
                self._id, self._revision, model.fingerprint, settings, same, turns[same:]
            )
            self._revision += 1
        if self._id is None or not alone:
            self._add(settings)
        gone, self._stored = self._stored[same:] if alone else [], uids
        if turns:
            self.conversation.state()  # reads what the last state has not read yet, and keeps it
        self.store.save_states(self.conversation.kept())
        self.store.thin([*gone, *uids[:-1]])
        self.conversation.shelf = _StateFiles(self.store, model)
        self.conversation.release()
        return alone

    def exchange(self, conversation: Conversation) -> None:
        """The same conversation for another model, turns and all: it is kept in place of the old one."""
        self.conversation = conversation

    def fork(self, name: str | None, settings: Mapping[str, Any]) -> "Session":
        """A kept copy under another name; no state is copied.

        Raises SessionError for a name that is taken.
        """
        if name is not None and self.store.find(checked_name(name)):
            raise SessionError(f"there is already a session {name!r}; choose another name")
        twin = Session(self.store, self.conversation.fork(), name)
        twin.keep(settings)
        return twin

    def _add(self, settings: Mapping[str, Any]) -> None:
        """Put it into the store as a new session, under its name or the next that is free."""
        turns = self.conversation.turns
        wish = self.name or name_for(turns[0].user)
        while True:
            name = self.store.free_name(wish)
            added = self.store.add(name, self._model().fingerprint, settings, turns)
            if added is not None:
                self.name, self._id, self._revision = name, added, 1
                return

    def _model(self) -> "Model":
        """The conversation's model, which for a session is a whole one."""
        return cast("Model", self.conversation.model)


def carried(before: Conversation, model: "Model", template: Template) -> Conversation:
    """The same conversation for another model, which will read all of it before its next answer.

    Raises OptionError for a way of thinking that the template does not have.
    """
    turns = reread(before.turns, model.tokenizer, template)
    fresh = Conversation(model, template, system=before.system, think=before.think, turns=turns)
    fresh.draft = before.draft if isinstance(before.draft, str) else "auto"  # a model drafts for its own kind
    return fresh
