"""A text that stands before the user's first words in every conversation: as data, and in a chat template."""

import json
from collections.abc import Iterable, Sequence

from derta.data.triples import Message

_TEMPLATE = """\
{%%- set before = namespace(messages=[], done=false) -%%}
{%%- for message in messages -%%}
{%%- if message['role'] == 'user' and not before.done -%%}
{%%- set before.done = true -%%}
{%%- set before.messages = before.messages + [{'role': 'user', 'content': %s + ' ' + message['content']}] -%%}
{%%- else -%%}
{%%- set before.messages = before.messages + [message] -%%}
{%%- endif -%%}
{%%- endfor -%%}
{%%- set messages = before.messages -%%}
"""


def template_with(text: str, template: str) -> str:
    """Return a chat template that writes `text` before the first message of the user's."""
    return _TEMPLATE % json.dumps(text, ensure_ascii=False) + template


def messages_with(text: str, messages: Iterable[Message]) -> list[Message]:
    """Return a conversation with `text` before the first message of the user's."""
    turns: Sequence[Message] = list(messages)
    first = next(index for index, turn in enumerate(turns) if turn["role"] == "user")
    said = Message(role="user", content=f"{text} {turns[first]['content']}")
    return [*turns[:first], said, *turns[first + 1 :]]
