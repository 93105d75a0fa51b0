"""A kept conversation for people (Markdown) and for programs (JSON)."""

import json
from collections.abc import Sequence
from datetime import datetime, timezone

from rwkv_engine.chat.answer import Turn
from rwkv_engine.chat.database import Info


def as_markdown(info: Info, turns: Sequence[Turn]) -> str:
    """The conversation with a heading for each side; thoughts are folded away in a `<details>`."""
    parts = [f"# {info.name}\n\n{_date(info.changed)}, {info.turns} turns, {info.tokens} tokens\n"]
    for turn in turns:
        if turn.system:
            parts.append(f"## System\n\n{turn.system.strip()}\n")
        parts.append(f"## User\n\n{turn.user.strip()}\n")
        thought = (
            f"<details><summary>Thinking</summary>\n\n{turn.thinking}\n\n</details>\n\n"
            if turn.thinking
            else ""
        )
        parts.append(f"## Assistant\n\n{thought}{turn.answer}\n")
    return "\n".join(parts)


def as_json(info: Info, turns: Sequence[Turn]) -> str:
    """One JSON object: name, times, fingerprint, settings, and `messages` with role and content as chat
    programs exchange them.
    """
    messages: list[dict[str, str]] = []
    for turn in turns:
        if turn.system:
            messages.append({"role": "system", "content": turn.system})
        messages.append({"role": "user", "content": turn.user})
        thought = {"thinking": turn.thinking} if turn.thinking else {}
        messages.append({"role": "assistant", "content": turn.answer, **thought})
    record = {
        "name": info.name,
        "created": _date(info.created),
        "changed": _date(info.changed),
        "fingerprint": info.fingerprint,
        "settings": dict(info.settings),
        "tokens": info.tokens,
        "messages": messages,
    }
    return json.dumps(record, ensure_ascii=False, indent=2)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
