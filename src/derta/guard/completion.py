"""What a model server answers: read once into types of our own, and written again with known fields only.

Whatever a server sends beside these fields, a client never sees: text that nobody counted could stand there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LEAST_LOGPROB = -9999.0
"""What vLLM writes for no chance at all, in place of minus infinity, which JSON hasn't."""
_ROUNDING = 1e-3
"""How far above 0 rounding may take a log-probability."""
_MAX_NAME = 256
"""Characters of a token's name at most: the longest tokens of real vocabularies are runs of 128 spaces."""
_FINISH_REASONS = ("stop", "length", "content_filter", "tool_calls")
_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")


class UntrustedError(Exception):
    """What the server says of its tokens is missing, or can't be true."""


class ServerError(Exception):
    """The server broke off, or sent what isn't an answer."""


@dataclass(frozen=True)
class NamedToken:
    """A token as a server names it.

    Attributes:
        name (`str`): what the server calls it: its text, or `Ġtext`, `▁text`, `token_id:8`.
        logprob (`float`): its log-probability.
        spelling (`str`): its text by the bytes that the server tells, or else its name.
    """

    name: str
    logprob: float
    spelling: str

    def to_json(self) -> dict[str, Any]:
        """Return what a chat completion says of it."""
        return {"token": self.name, "logprob": self.logprob, "bytes": list(self.spelling.encode())}


@dataclass(frozen=True)
class TokenLogprobs:
    """What a server tells about one place of an answer.

    Attributes:
        written (`NamedToken`): the token that was written.
        likely (`tuple[NamedToken, ...]`): the likeliest ones; the written one may be missing (it was drawn).
        is_mapping (`bool`): whether they came by name, so that of tokens that are named alike only one is left.
    """

    written: NamedToken
    likely: tuple[NamedToken, ...]
    is_mapping: bool = False


@dataclass(frozen=True)
class ChoicePart:
    """A choice, or a piece of it from a stream.

    Attributes:
        index (`int`): the choice's number.
        content (`str`): its text.
        reasoning (`str`): the thoughts before it, where the server tells them apart.
        logprobs (`tuple[TokenLogprobs, ...]`): one for each of its tokens.
        finish_reason (`str`, *optional*): why it ended.
    """

    index: int
    content: str
    reasoning: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        """All that a client would read, in the order in which it was written."""
        return self.reasoning + self.content


@dataclass(frozen=True)
class Completion:
    """A server's answer, or an event of its stream."""

    choices: tuple[ChoicePart, ...]
    usage: Mapping[str, int] | None = None


def read_completion(content: bytes, *, is_chat: bool, is_stream: bool) -> Completion:
    """Read an answer of status 200.

    Raises:
        ServerError: It is no completion.
        UntrustedError: Its log-probabilities have another form, or aren't any.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ServerError("the server sends what isn't JSON") from None
    if not isinstance(document, dict):
        raise ServerError("the server sends what is no object")
    if document.get("error"):
        raise ServerError("the server reports an error")
    choices = document.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ServerError("the server sends no choices")
    counted = document.get("usage")
    usage = None
    if isinstance(counted, dict):
        usage = {name: counted[name] for name in _USAGE if type(counted.get(name)) is int}
    where = ("delta" if is_stream else "message") if is_chat else None
    return Completion(tuple(_read_choice(choice, where) for choice in choices), usage)


def _read_choice(choice: Mapping[str, Any], where: str | None) -> ChoicePart:
    index, reason = choice.get("index"), choice.get("finish_reason") or None
    if type(index) is not int:
        raise UntrustedError("the server sends a choice without a number")
    if reason is not None and reason not in _FINISH_REASONS:
        raise ServerError("the server ends a choice for a reason that is none of the protocol's")
    if where is None:
        return ChoicePart(index, _text(choice.get("text")), "", _text_logprobs(choice.get("logprobs")), reason)
    message = choice.get(where) or {}
    if not isinstance(message, dict):
        raise ServerError("the server sends a message that is no object")
    # vLLM tells thoughts by two names; a provider's own refusal stands beside the content.
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    content = _text(message.get("content")) + _text(message.get("refusal"))
    return ChoicePart(index, content, reasoning, _chat_logprobs(choice.get("logprobs")), reason)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ServerError("the server sends a text that is none")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ServerError("the server sends half a character") from None
    return value


def _chat_logprobs(logprobs: Any) -> tuple[TokenLogprobs, ...]:
    if not isinstance(logprobs, dict):
        return ()
    places = []
    for entry in _list(logprobs.get("content")) + _list(logprobs.get("refusal")):
        named = [entry, *_list(entry.get("top_logprobs"))] if isinstance(entry, dict) else [entry]
        if not all(isinstance(each, dict) for each in named):
            raise UntrustedError("the server's log-probabilities are no objects")
        written, *likely = [_named(each.get("token"), each.get("logprob"), each.get("bytes")) for each in named]
        places.append(TokenLogprobs(written, tuple(likely)))
    return tuple(places)


def _text_logprobs(logprobs: Any) -> tuple[TokenLogprobs, ...]:
    if not isinstance(logprobs, dict):
        return ()
    names, values = _list(logprobs.get("tokens")), _list(logprobs.get("token_logprobs"))
    tops = _list(logprobs.get("top_logprobs"))
    if not len(names) == len(values) == len(tops):
        raise UntrustedError("the server's lists of tokens and log-probabilities differ in length")
    places = []
    for name, value, top in zip(names, values, tops, strict=True):
        if not isinstance(top, dict):
            raise UntrustedError("the server names no likely tokens")
        likely = tuple(_named(each, logprob) for each, logprob in top.items())
        places.append(TokenLogprobs(_named(name, value), likely, is_mapping=True))
    return tuple(places)


def _named(name: Any, logprob: Any, raw: Any = None) -> NamedToken:
    if not isinstance(name, str) or len(name) > _MAX_NAME:
        raise UntrustedError("the server names no likely tokens")
    # A bool is an int, and NaN is smaller than nothing.
    if type(logprob) not in (float, int) or not logprob <= _ROUNDING:
        raise UntrustedError("the server sends what is no log-probability")
    # A lone half of a character would make what is written unreadable.
    name = name.encode(errors="replace").decode()
    spelling = name
    if isinstance(raw, list) and 0 < len(raw) <= _MAX_NAME:
        if not all(type(byte) is int and 0 <= byte < 256 for byte in raw):
            raise UntrustedError("the server sends bytes that are none")
        spelling = bytes(raw).decode(errors="replace")
    return NamedToken(name, float(max(min(logprob, 0.0), _LEAST_LOGPROB)), spelling)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise UntrustedError("the server's log-probabilities are no list")
    return value


def write_choice(part: ChoicePart, *, is_chat: bool, is_stream: bool, top_logprobs: int | None) -> dict[str, Any]:
    """Return a choice as a client gets it.

    Args:
        part (`ChoicePart`): what may leave.
        is_chat (`bool`): whether it is a chat completion.
        is_stream (`bool`): whether it is an event of a stream.
        top_logprobs (`int`, *optional*): how many likely tokens the client asked for; `None` for no log-probabilities.
    """
    choice: dict[str, Any] = {"index": part.index, "logprobs": None, "finish_reason": part.finish_reason}
    if top_logprobs is not None and part.logprobs:
        choice["logprobs"] = (_write_chat_logprobs if is_chat else _write_text_logprobs)(part.logprobs, top_logprobs)
    if not is_chat:
        return {**choice, "text": part.content}
    message = {"role": "assistant", "content": part.content}
    if part.reasoning:
        message["reasoning_content"] = part.reasoning
    return {**choice, "delta" if is_stream else "message": message}


def _write_chat_logprobs(places: Sequence[TokenLogprobs], count: int) -> dict[str, Any]:
    content = []
    for place in places:
        likely = [token.to_json() for token in place.likely[:count]]
        content.append({**place.written.to_json(), "top_logprobs": likely})
    return {"content": content}


def _write_text_logprobs(places: Sequence[TokenLogprobs], count: int) -> dict[str, Any]:
    tops = [{token.name: token.logprob for token in place.likely[:count]} for place in places]
    return {
        "tokens": [place.written.name for place in places],
        "token_logprobs": [place.written.logprob for place in places],
        "top_logprobs": tops if count else None,
    }
