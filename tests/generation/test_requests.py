"""Requests as tokens: conversations that a guard model judges."""

import pytest

from derta.data.triples import Message
from derta.errors import InputError
from derta.generation import ChatRequest, encode
from tests.generation.tiny import make_tokenizer

GUARD = (
    "{% if messages[-1].role != 'assistant' %}{{ raise_exception('only whole conversations') }}{% endif %}"
    "<s>Is this safe?{% for message in messages %}{{ message.role }}: {{ message.content }}{% endfor %}Verdict:"
)


def test_a_finished_conversation_is_put_as_the_template_of_a_guard_model_wants_it() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = GUARD
    messages: tuple[Message, ...] = ({"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."})
    (context,) = encode(tokenizer, [ChatRequest(messages)])
    assert tokenizer.decode(context.ids) == "<s>Is this safe?user: How?assistant: So.Verdict:"
    assert context.begun == 0
    tokenizer.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(InputError, match="the chat template refuses these messages: no such role"):
        encode(tokenizer, [ChatRequest(messages)])
