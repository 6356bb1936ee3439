"""A chat template may do what it likes: rendering it ends, in bounded time and memory."""

import time
from typing import Any, cast

import pytest
from transformers import PreTrainedTokenizerFast

from derta.data.triples import Message
from derta.errors import InputError
from derta.tokens import rendering
from derta.tokens.rendering import render

MESSAGES: list[Message] = [{"role": "user", "content": "how? \ud800"}]
BOMBS = {
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "a text doubled again and again": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}{{ n.x }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a text as wide as a disk": "{{ 'a' | center(10 ** 11) }}",
    "a long text": "{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_that_never_ends_is_ended(
    bomb: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 1.0)
    (before,) = render(tokenizer, [MESSAGES], ["here"])
    template, tokenizer.chat_template = tokenizer.chat_template, BOMBS[bomb]
    began = time.monotonic()
    with pytest.raises(InputError, match=r"the chat template (takes more|refuses these messages: it )"):
        render(tokenizer, [MESSAGES], ["here"])
    assert time.monotonic() - began < 15
    tokenizer.chat_template = template
    assert render(tokenizer, [MESSAGES], ["here"]) == [before]


def test_a_text_that_is_too_long_is_refused_however_fast_it_was_written(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = BOMBS["a long text"]
    with pytest.raises(InputError, match=r"^here: .*: it writes more than 16,777,216 characters$"):
        render(tokenizer, [MESSAGES], ["here"])


def test_it_renders_as_transformers_does(tokenizer: PreTrainedTokenizerFast) -> None:
    conversations: list[list[Message]] = [MESSAGES, [*MESSAGES, {"role": "assistant", "content": "No."}]]
    for generation in (True, False):
        texts = render(tokenizer, conversations, ["a", "b"], add_generation_prompt=generation)
        expected = [
            tokenizer.apply_chat_template(cast(Any, each), tokenize=False, add_generation_prompt=generation)
            for each in conversations
        ]
        assert texts == expected


def test_the_conversation_that_a_template_refuses_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{% if messages[0].content == 'b' %}{{ raise_exception('no b') }}{% endif %}x"
    with pytest.raises(InputError, match=r"^second: prompt: the chat template refuses these messages: no b$"):
        render(tokenizer, [[{"role": "user", "content": text}] for text in "abc"], ["first", "second", "third"])
