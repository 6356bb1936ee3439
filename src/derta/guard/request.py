"""What a client asks for: a list of fields that pass, because what a server makes of any other nobody knows.

Structured outputs, biases, lists of allowed or bad words and tools all change which tokens a model can write, some
servers tell probabilities after that change, and p(refuse) is 0 then wherever the refusal tokens were taken away.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_CHOICES = 128
_FIELDS = {
    "model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "stop", "seed",
    "user", "logprobs",
}  # fmt: skip
_CHAT_FIELDS = _FIELDS | {
    "messages", "max_completion_tokens", "top_logprobs", "add_generation_prompt", "continue_final_message",
    "chat_template_kwargs",
}  # fmt: skip
_TEXT_FIELDS = _FIELDS | {"prompt"}
_WITHOUT_EFFECT: Mapping[str, Any] = {
    "best_of": 1, "frequency_penalty": 0, "presence_penalty": 0, "repetition_penalty": 1, "tool_choice": "none",
    "response_format": {"type": "text"}, "parallel_tool_calls": True,
}  # fmt: skip
"""Values that clients send for fields that don't pass, and that ask for nothing. They are left out."""


class BadRequestError(Exception):
    """The client asks for what a guard can't give."""


@dataclass(frozen=True)
class GuardedRequest:
    """A request as the server gets it, and what of it concerns the guard.

    Attributes:
        body (`dict`): the fields that pass, with the log-probabilities that the guard asks for.
        is_chat (`bool`): whether it is a chat completion.
        follows (`bool`): whether what is written continues a text that the client has: a prompt, or a begun answer.
        top_logprobs (`int`, *optional*): how many likely tokens the client asked for; `None` for no log-probabilities.
        choices (`int`): how many choices there will be.
        wants_usage (`bool`): whether the client asked for the usage of a stream.
    """

    body: dict[str, Any]
    is_chat: bool
    follows: bool
    top_logprobs: int | None
    choices: int
    wants_usage: bool

    @property
    def is_stream(self) -> bool:
        """Whether the answer is to be streamed."""
        return bool(self.body.get("stream"))


def read_request(content: bytes, *, is_chat: bool, model: str, top_logprobs: int) -> GuardedRequest:
    """Read a client's request.

    Args:
        content (`bytes`): its body.
        is_chat (`bool`): whether it is for the chat endpoint.
        model (`str`): the only model that may be asked: the one that was calibrated.
        top_logprobs (`int`): how many likely tokens the guard needs.

    Raises:
        BadRequestError: It isn't one, or asks for what can't be guarded.
    """
    try:
        body = json.loads(content)
        # Infinity, NaN and half a character can be read, and not be sent.
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise BadRequestError("the request isn't JSON") from None
    if not isinstance(body, dict):
        raise BadRequestError("the request must be a JSON object")
    passed = _passed_fields(body, _CHAT_FIELDS if is_chat else _TEXT_FIELDS)
    if passed.setdefault("model", model) != model:
        raise BadRequestError(f"model: the guard watches {model!r} only")
    choices = _count_choices(passed)
    if is_chat:
        messages = passed.get("messages")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise BadRequestError("messages: must be a list of objects")
        follows = bool(messages) and messages[-1].get("role") == "assistant"
    else:
        follows = True
    own = _count_logprobs(passed, is_chat)
    count = max(top_logprobs, own or 0)
    passed |= {"logprobs": True, "top_logprobs": count} if is_chat else {"logprobs": count}
    options = passed.get("stream_options", {})
    if not isinstance(options, dict) or not options.keys() <= {"include_usage", "continuous_usage_stats"}:
        raise BadRequestError("stream_options: include_usage is all that passes the guard")
    return GuardedRequest(passed, is_chat, follows, own, choices, bool(options.get("include_usage")))


def _passed_fields(body: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    passed = {}
    for name, value in body.items():
        if value is None:
            continue
        if name in known:
            passed[name] = value
        elif value and value != _WITHOUT_EFFECT.get(name):
            raise BadRequestError(f"{name[:64]}: doesn't pass the guard, which couldn't tell what the model wrote then")
    return passed


def _count_choices(body: Mapping[str, Any]) -> int:
    prompt, n = body.get("prompt"), body.get("n", 1)
    # A list of numbers is the tokens of one prompt.
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    if type(n) is not int or not 1 <= n * prompts <= MAX_CHOICES:
        raise BadRequestError(f"n: the guard watches 1 to {MAX_CHOICES} choices of a request")
    return n * prompts


def _count_logprobs(body: Mapping[str, Any], is_chat: bool) -> int | None:
    """Return how many likely tokens the client asks for; `None` if it wants no log-probabilities."""
    name = "top_logprobs" if is_chat else "logprobs"
    if (not is_chat and name not in body) or (is_chat and not body.get("logprobs")):
        return None
    count = body.get(name, 0)
    if type(count) is not int or count < 0:
        raise BadRequestError(f"{name}: must be a number of tokens")
    return count
