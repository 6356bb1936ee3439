"""Schemas of conversations: messages, ShareGPT, OpenAI's preference pairs, and transcripts of Human and Assistant."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

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


def _openai(row: Row) -> dict[str, Any]:
    given = row.values["input"]
    if not isinstance(given, Mapping) or "messages" not in given:
        raise InputError(f"{row.origin}: input must be an object with messages, not {type_name(given)}")
    names = {"chosen": "preferred_output", "rejected": "non_preferred_output"}
    return {
        "prompt": as_messages(given["messages"], "input.messages", row.origin),
        **{side: as_messages(row.values[name], name, row.origin) for side, name in names.items()},
    }


# Blank lines stand between turns; where there are none, lines do, and spaces where there are neither.
_BETWEEN_TURNS = tuple(
    re.compile(rf"(?:\A\s*|{between})(Human|Assistant):", re.ASCII) for between in (r"\n[ \t]*\n\s*", r"\n\s*", r"\s")
)


def is_transcript(value: Any) -> bool:
    """Whether `value` is text like "Human: … Assistant: …"."""
    return isinstance(value, str) and re.match(r"\s*Human:", value) is not None and "Assistant:" in value


def _turns(transcript: str, field: str, place: str) -> list[Message]:
    for between in _BETWEEN_TURNS:
        _, *parts = between.split(transcript)
        if "Assistant" in parts[::2]:
            break
    roles: list[Role] = ["user" if speaker == "Human" else "assistant" for speaker in parts[::2]]
    texts = [text.strip() for text in parts[1::2]]
    for index, role in enumerate(roles):
        if role != ("user", "assistant")[index % 2]:
            raise InputError(
                f"{place}: {field}: Human and Assistant must take turns; turn {index + 1} is {role}'s again"
            )
        if not texts[index] and index < len(roles) - 1:
            raise InputError(f"{place}: {field}: turn {index + 1} is empty; drop the row")
    if re.search(r"^\s*(Human|Assistant):", texts[-1], re.MULTILINE):
        raise InputError(f"{place}: {field}: its last turn holds another turn; put the same between all of them")
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def _transcripts(row: Row) -> dict[str, Any] | str:
    sides = {side: row.values[side] for side in ("chosen", "rejected")}
    prompt, place = row.values.get("prompt"), row.origin
    if is_transcript(prompt) and not is_transcript(sides["chosen"]) and not is_transcript(sides["rejected"]):
        turns = _turns(cast(str, prompt), "prompt", place)
        turns = turns if turns[-1]["content"] else turns[:-1]
        texts = {side: checked_text(value, side, place).strip() for side, value in sides.items()}
        return {"prompt": turns, **{side: [{"role": "assistant", "content": text}] for side, text in texts.items()}}
    for side, value in sides.items():
        if not is_transcript(value):
            raise InputError(f"{place}: {side} must be a transcript 'Human: … Assistant: …', as the other one is")
    chosen, rejected = (_turns(value, side, place) for side, value in sides.items())
    for side, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns[-1]["role"] != "assistant":
            raise InputError(f"{place}: {side} ends with Human's turn; it must end with Assistant's")
        checked_text(turns[-1]["content"], f"{side}: the last turn", place)
    if chosen[:-1] != rejected[:-1]:
        return "conversations differ before their last response"
    return {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


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
OPENAI_PREFERENCE = Schema(
    "openai-preference",
    "OpenAI's preference pairs: triples",
    ("input", "preferred_output", "non_preferred_output"),
    (),
    each(_openai),
    [
        {
            "input": {"messages": [{"role": "user", "content": _ASKED}]},
            "preferred_output": [{"role": "assistant", "content": _SHUT}],
            "non_preferred_output": [{"role": "assistant", "content": _KEY}],
        }
    ],
)
HH_RLHF = Schema(
    "hh-rlhf",
    "transcripts 'Human: … Assistant: …' that differ in their last response: triples",
    ("chosen", "rejected"),
    ("prompt",),
    each(_transcripts),
    [
        {
            "chosen": f"\n\nHuman: {_ASKED}\n\nAssistant: {_SHUT}",
            "rejected": f"\n\nHuman: {_ASKED}\n\nAssistant: {_KEY}",
        }
    ],
    lambda values: any(is_transcript(values.get(column)) for column in ("prompt", "chosen", "rejected")),
)
