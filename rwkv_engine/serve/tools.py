"""Calls of tools: found in what a model wrote, in the forms that models are known to write, and written down
for a model.
"""

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from rwkv_engine.errors import OptionError
from rwkv_engine.system.json_text import parsed

_FENCE = re.compile(r"```(?:json|tool_call)?\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
_TAGS = re.compile(r"<tool_calls?>\s*(.*?)\s*(?:</tool_calls?>|\Z)", re.DOTALL)
#: how an answer begins that may be a call
_BEGINNINGS = ("{", "[", "```", "<tool_call")


def may_be_call(text: str) -> bool | None:
    """Whether an answer that begins so may be a call; None: it is too early to say."""
    start = text.lstrip()
    if any(start.startswith(beginning) for beginning in _BEGINNINGS):
        return True
    return None if any(beginning.startswith(start) for beginning in _BEGINNINGS) else False


def calls_in(text: str, names: Sequence[str], primed: bool = False) -> tuple[str, list[dict[str, Any]]]:
    """(what else was said, the calls in OpenAI's form). Without a call the text is what it was.

    names   of the functions there are: others are no calls.
    primed  whether the prompt had opened a block of JSON.
    """
    whole = f"```json\n{text}" if primed else text
    for form in (_TAGS, _FENCE):
        found = [call for match in form.finditer(whole) for call in _calls(match[1], names)]
        if found:
            return form.sub("", whole).strip(), found
    found = _calls(whole.strip(), names)
    return ("", found) if found else (text, [])


def _calls(text: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """The calls in a JSON text, or in some that stand one after another; none if anything in it is something
    else.
    """
    decoder, calls, at = json.JSONDecoder(), [], 0
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            for one in value if isinstance(value, list) else [value]:
                call = _call(one, names)
                if call is None:
                    return []
                calls.append(call)
            at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n,;"))
    except (ValueError, RecursionError):
        return calls
    return calls


def _call(value: Any, names: Sequence[str]) -> dict[str, Any] | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    given = value.get("arguments", value.get("parameters", {}))
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    call = {"name": value["name"], "arguments": text}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": call}


def written(name: str, arguments: str) -> str:
    """A call as a model writes it, for the history of a conversation."""
    try:
        given = parsed(arguments or "{}")
    except ValueError:
        given = arguments
    return f"```json\n{json.dumps({'name': name, 'arguments': given}, ensure_ascii=False)}\n```"


def schema_for(tools: Sequence[dict[str, Any]], name: str | None) -> dict[str, Any]:
    """A JSON schema of a call of one of the tools, or of the one called `name`.

    Raises OptionError if there is none.
    """
    chosen = [tool for tool in tools if name in (None, tool["name"])]
    if not chosen:
        raise OptionError(f"tool_choice: there is no tool {name!r}")
    forms = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["name"]},
                "arguments": tool.get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in chosen
    ]
    return forms[0] if len(forms) == 1 else {"anyOf": forms}
