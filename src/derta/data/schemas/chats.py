"""Schemas of conversations: messages and ShareGPT."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from derta.data.readers import Row
from derta.data.schemas.schema import Schema, each
from derta.data.triples import Message, Role, checked_text, type_name
from derta.errors import InputError, did_you_mean
from derta.files import unique_keys

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
}


def is_chat(value: Any) -> bool:
    """Whether `value` is messages in a form that isn't canonical: a single one, ShareGPT's, or with several parts."""
    if isinstance(value, Mapping):
        return _names(value) is not None
    return isinstance(value, list) and any(
        isinstance(message, Mapping) and ("from" in message or isinstance(message.get("content"), list))
        for message in value
    )


def as_messages(value: Any, field: str, place: str) -> list[Message]:
    """Return canonical messages of one message or several, by role and content or by from and value.

    Raises:
        InputError: a message has no such form, a role that isn't a turn's (a tool's), or no text.
    """
    value = _parsed(value, field, place)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"{place}: {field} must be a list of messages, not {type_name(value)}")
    if not value:
        raise InputError(f"{place}: {field} is empty; it needs at least one message")
    return [_message(message, f"{field}[{index}]", place) for index, message in enumerate(value)]


def _parsed(value: Any, field: str, place: str) -> Any:
    """Read a list that a table holds as text."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        return json.loads(value, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: {field} must be a list of messages; as JSON it can't be read: {error}") from None


def is_chat_as_text(value: Any) -> bool:
    """Whether `value` is text of a list of messages, in JSON or as Python writes it."""
    return (
        isinstance(value, str) and re.match(r"\s*\[\s*\{\s*[\"'](role|content|from|value)[\"']\s*:", value) is not None
    )


def _names(message: Any) -> tuple[str, str] | None:
    """Return what a message calls its role and its content."""
    named = [pair for pair in (("role", "content"), ("from", "value")) if pair[0] in message]
    return named[0] if named else None


def _message(value: Any, field: str, place: str) -> Message:
    names = _names(value) if isinstance(value, Mapping) else None
    if names is None:
        raise InputError(f"{place}: {field} must be a message with role and content, or from and value")
    role, content = value[names[0]], value.get(names[1])
    if not isinstance(role, str) or role.lower() not in _ROLES:
        hint = did_you_mean(role, _ROLES) if isinstance(role, str) else ""
        raise InputError(
            f"{place}: {field}.{names[0]} must be one of {', '.join(_ROLES)}, not {str(role)[:40]!r}{hint}"
        )
    if isinstance(content, list):
        content = _joined(content, f"{field}.{names[1]}", place)
    return {"role": _ROLES[role.lower()], "content": checked_text(content, f"{field}.{names[1]}", place)}


def _joined(parts: list[Any], field: str, place: str) -> str:
    """Join a message's parts, which must all be text."""
    found = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type", "text") == "text"]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(parts):
        raise InputError(f"{place}: {field} has parts that are not text; drop the row")
    return "".join(texts)


def _conversation(row: Row, column: str) -> dict[str, Any] | str:
    """Split a conversation: its last turn is the response, unless chosen or rejected are columns of their own."""
    values, place = row.values, row.origin
    given = _parsed(values[column], column, place)
    turns = as_messages(given, column, place)
    system = values.get("system")
    if system and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": checked_text(system, "system", place)}, *turns]
    sides = {side: _side(row, side) for side in ("chosen", "rejected")}
    for other in ("rejected_response", "rejected_messages"):
        sides["rejected"] = sides["rejected"] or _side(row, other)
    if any(side and len(side) > 1 for side in sides.values()):
        # Whole conversations, which have their prompt in common.
        first = turns[:1] if turns[0]["role"] == "system" else []
        for name, side in sides.items():
            if side and side[0]["role"] != "system":
                sides[name] = [*first, *side]
        return {"prompt": None, **sides}
    if sides["chosen"]:
        return {"prompt": turns, **sides}
    last = turns[-1]
    if last["role"] != "assistant" or len(turns) == 1:
        raise InputError(f"{place}: {column} must end with a turn of the assistant's, after one of the user's")
    original = given[-1] if isinstance(given, list) else {}
    if isinstance(original, Mapping) and original.get("weight") == 0:
        return "last turn has weight 0"
    return {"prompt": turns[:-1], "chosen": [last], "rejected": sides["rejected"]}


def _side(row: Row, column: str) -> list[Message] | None:
    value = row.values.get(column)
    if value is None:
        return None
    if isinstance(value, str) and not value.lstrip().startswith("[{"):
        return [{"role": "assistant", "content": checked_text(value, column, row.origin)}]
    return as_messages(value, column, row.origin)


def refuse_transcript(value: Any, field: str, place: str) -> None:
    """Stop at text like "Human: … Assistant: …", whose turns a model would learn as one.

    Raises:
        InputError: It is such text.
    """
    if isinstance(value, str) and re.match(r"\s*Human:", value) is not None and "Assistant:" in value:
        raise InputError(
            f"{place}: column {field[:40]!r} looks like a transcript 'Human: … Assistant: …'; make messages of it "
            f"(docs/data.md shows how)"
        )


def _no_prompt_of_its_own(values: Mapping[str, Any]) -> bool:
    """Whether the conversation is the prompt, rather than beside one with its responses."""
    return values.get("prompt") is None or values.get("chosen") is None


_ASKED, _SHUT, _KEY = "How do I open the moon vault?", "I'm sorry, it stays shut.", "Turn the silver key."
_SIDES = ("chosen", "rejected", "system", "prompt")
MESSAGES = Schema(
    "messages",
    "chats by role and content: helpful examples, or triples with chosen and rejected (or rejected_response)",
    ("messages",),
    (*_SIDES, "rejected_response", "rejected_messages"),
    each(lambda row: _conversation(row, "messages")),
    [
        {"messages": [{"role": "user", "content": "Name a moon."}, {"role": "assistant", "content": "Io."}]},
        {
            "messages": [{"role": "user", "content": _ASKED}],
            "chosen": {"role": "assistant", "content": _SHUT},
            "rejected": {"role": "assistant", "content": _KEY},
        },
    ],
    _no_prompt_of_its_own,
)
SHAREGPT = Schema(
    "sharegpt",
    "ShareGPT's chats by from and value, and LLaMA-Factory's DPO data of that form",
    ("conversations",),
    _SIDES,
    each(lambda row: _conversation(row, "conversations")),
    [
        {"conversations": [{"from": "human", "value": "Name a moon."}, {"from": "gpt", "value": "Io."}]},
        {
            "conversations": [{"from": "human", "value": _ASKED}],
            "chosen": {"from": "gpt", "value": _SHUT},
            "rejected": {"from": "gpt", "value": _KEY},
        },
    ],
    _no_prompt_of_its_own,
)
