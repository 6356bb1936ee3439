"""What a client may ask for is a list; everything else is refused in one line."""

import json

import pytest

from derta.guard.request import BadRequestError, read_request

CHAT = {"messages": [{"role": "user", "content": "How?"}]}


def read(body, *, is_chat=True):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_request(content, is_chat=is_chat, model="m", top_logprobs=20)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logit_bias", {"8": -100}),
        ("bad_words", ["Sorry"]),
        ("allowed_token_ids", [1]),
        ("structured_outputs", {"regex": "[^S]{1,2000}"}),
        ("guided_regex", "[^S]*"),
        ("response_format", {"type": "json_object"}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("repetition_penalty", 2.0),
        ("presence_penalty", 2),
        ("echo", True),
        ("use_beam_search", True),
        ("return_tokens_as_token_ids", True),
        ("vllm_xargs", {"a": 1}),
        ("chat_template", "{{ 1 }}"),
        ("grammar", "root ::= [^S]*"),
        ("whatever comes next", 1),
    ],
)
def test_a_field_that_is_not_known_is_refused_by_name(field, value):
    with pytest.raises(BadRequestError) as error:
        read({**CHAT, field: value})
    assert str(error.value).startswith(field)
    assert "\n" not in str(error.value)


def test_what_asks_for_nothing_is_left_out():
    idle = {"logit_bias": None, "tools": [], "presence_penalty": 0, "response_format": {"type": "text"}, "echo": False}
    assert read({**CHAT, **idle}).body == read(CHAT).body


def test_the_model_is_the_calibrated_one():
    assert read(CHAT).body["model"] == read({**CHAT, "model": "m"}).body["model"] == "m"
    with pytest.raises(BadRequestError, match="watches 'm' only"):
        read({**CHAT, "model": "base"})


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[1]",
        b'{"messages": [], "temperature": NaN}',
        b'{"messages": [], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
        b'{"messages": "How?"}',
        b'{"messages": [], "n": 0}',
        b'{"messages": [], "n": 129}',
        b'{"messages": [], "logprobs": true, "top_logprobs": "many"}',
        b'{"messages": [], "stream_options": {"x": 1}}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_request_is_refused(content):
    with pytest.raises(BadRequestError):
        read(content)
