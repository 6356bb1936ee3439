"""What a server sends is read once, with known fields only."""

import json
import math

import pytest

from derta.guard.completion import ServerError, UntrustedError, read_completion, write_choice

NAMED = {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": -0.5}]}


def read(choice, *, is_chat=True, **more):
    content = json.dumps({"choices": [{"index": 0, **choice}], **more}).encode()
    return read_completion(content, is_chat=is_chat, is_stream=False)


def test_unknown_fields_are_never_seen_again():
    message = {"role": "x" * 400, "content": "Hi", "tool_calls": [{"id": "text"}], "audio": {"transcript": "text"}}
    found = read({"message": message, "text": "text", "delta": {"content": "text"}}, output_text="text", usage={"a": 1})
    (part,) = found.choices
    written = json.dumps(write_choice(part, is_chat=True, is_stream=False, top_logprobs=None))
    assert "text" not in written.replace("content", "")
    assert "xxx" not in written
    assert part.text == "Hi"
    assert found.usage == {}


def test_thoughts_and_a_providers_refusal_are_text():
    message = {"content": "b", "reasoning": "a", "reasoning_content": "a", "refusal": "c"}
    (part,) = read({"message": message}).choices
    assert part.text == "abc"


@pytest.mark.parametrize("logprob", [None, "0", True, math.nan, 0.5, 10**400])
def test_what_is_no_log_probability_is_not_trusted(logprob):
    for entry in ({**NAMED, "logprob": logprob}, {**NAMED, "top_logprobs": [{"token": "b", "logprob": logprob}]}):
        with pytest.raises(UntrustedError):
            read({"message": {"content": "a"}, "logprobs": {"content": [entry]}})


def test_a_whole_number_larger_than_a_float_is_no_chance():
    (part,) = read({"message": {"content": "a"}, "logprobs": {"content": [{**NAMED, "logprob": -(10**400)}]}}).choices
    assert math.exp(part.logprobs[0].written.logprob) == 0


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": "no list"},
        {"content": [1]},
        {"content": [{**NAMED, "top_logprobs": [3]}]},
        {"content": [{**NAMED, "token": None}]},
        {"content": [{**NAMED, "bytes": [300]}]},
        {"content": [{**NAMED, "token": "a" * 300}]},
    ],
)
def test_a_chats_log_probabilities_have_a_form(logprobs):
    with pytest.raises(UntrustedError):
        read({"message": {"content": "a"}, "logprobs": logprobs})


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["a"], "token_logprobs": [], "top_logprobs": []},
        {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [None]},
        {"tokens": [3], "token_logprobs": [-1.0], "top_logprobs": [{}]},
    ],
)
def test_a_texts_log_probabilities_have_a_form(logprobs):
    with pytest.raises(UntrustedError):
        read({"text": "a", "logprobs": logprobs}, is_chat=False)


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": ["a"]}},
        {"message": "a"},
        {"message": {"content": "\ud83d"}},
        {"message": {"content": "a"}, "finish_reason": "a" * 400},
    ],
)
def test_what_is_no_answer_is_an_error(choice):
    with pytest.raises(ServerError):
        read(choice)


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"choices": [1]}', b'{"error": "text", "choices": []}'])
def test_an_error_of_a_server_is_told_in_words_of_our_own(content):
    with pytest.raises(ServerError) as error:
        read_completion(content, is_chat=True, is_stream=True)
    assert "text" not in str(error.value)
