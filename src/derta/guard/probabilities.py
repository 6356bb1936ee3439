"""p(refuse) as a server's log-probabilities tell it: what isn't told is bounded from above, never guessed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SLACK = 1e-3
"""How far rounding may take probabilities beyond 1."""
_IMPOSSIBLE = -1e4
"""A log-probability that is no chance at all: a whole number below it may be larger than a float."""


class Untrusted(Exception):  # noqa: N818 (the server's fault, not the caller's)
    """A server's log-probabilities are missing, or can't be what they are said to be."""


@dataclass(frozen=True)
class RefusalBound:
    """Bounds p(refuse) from the likeliest tokens that a server names.

    Attributes:
        spellings: Holds the texts of the refusal tokens, one a token: several may be spelt alike.
    """

    spellings: tuple[str, ...]

    def __call__(self, token: Any, logprob: Any, top: Sequence[tuple[Any, Any]], *, is_mapping: bool = False) -> float:
        """Return the least number that p(refuse) is known not to exceed.

        A refusal token that is among those named counts with its probability. One that isn't is at most as likely as
        the least likely of the others named, and at most what all named leave of 1. The token that was written may be
        named without being among the likeliest (it was drawn): it bounds nothing.

        Args:
            token: Is the text of the token that was written.
            logprob: Is its log-probability.
            top: Names the likeliest tokens, with their log-probabilities.
            is_mapping: Whether they came by text, so that of tokens that are spelt alike only one is left.

        Raises:
            Untrusted: They are no log-probabilities.
        """
        if not top or not isinstance(token, str):
            raise Untrusted("the server names no likely tokens")
        written = _probability(logprob)
        total = refused = 0.0
        refusing, is_named, least = 0, False, 1.0
        for text, value in top:
            chance = _probability(value)
            total += chance
            if text in self.spellings:
                refusing, refused = refusing + 1, refused + chance
            if text == token:
                is_named = True
            elif chance < least:
                least = chance
        if not is_named:
            total += written
            if token in self.spellings:
                refusing, refused = refusing + 1, refused + written
        if total > 1 + _SLACK:
            raise Untrusted(f"the server's probabilities add up to {total:.3f}")
        left = max(1 - total, 0.0)
        missing = len(self.spellings) - refusing
        if missing <= 0:
            return refused
        if is_mapping and len(set(self.spellings)) < len(self.spellings):
            return min(refused + left, 1.0)
        return refused + min(missing * least, left)


def _probability(logprob: Any) -> float:
    # A bool is an int, and NaN is smaller than nothing.
    if type(logprob) not in (float, int) or not logprob <= _SLACK:
        raise Untrusted(f"{logprob!r} is no log-probability")
    return math.exp(max(min(logprob, 0.0), _IMPOSSIBLE))


@dataclass(frozen=True)
class Told:
    """What a piece of a choice tells about its tokens.

    Attributes:
        bounds: Holds the bound of p(refuse) before each of its tokens.
        size: Is about how many bytes of text these tokens can stand for.
    """

    bounds: tuple[float, ...]
    size: int


def of_chat(logprobs: Any, bound: RefusalBound) -> Told:
    """Read `choices[].logprobs` of a chat completion.

    Raises:
        Untrusted: It isn't what it should be.
    """
    if not isinstance(logprobs, dict):
        return Told((), 0)
    bounds, size = [], 0
    for entry in _list(logprobs.get("content")) + _list(logprobs.get("refusal")):
        if not isinstance(entry, dict):
            raise Untrusted("an entry of the log-probabilities is no object")
        top = _list(entry.get("top_logprobs"))
        if not all(isinstance(named, dict) for named in top):
            raise Untrusted("a likely token is no object")
        top = [(named.get("token"), named.get("logprob")) for named in top]
        bounds.append(bound(entry.get("token"), entry.get("logprob"), top))
        size += _size(entry["token"], entry.get("bytes"))
    return Told(tuple(bounds), size)


def of_text(logprobs: Any, bound: RefusalBound) -> Told:
    """Read `choices[].logprobs` of a text completion.

    Raises:
        Untrusted: It isn't what it should be.
    """
    if not isinstance(logprobs, dict):
        return Told((), 0)
    tokens, values = _list(logprobs.get("tokens")), _list(logprobs.get("token_logprobs"))
    tops = _list(logprobs.get("top_logprobs"))
    if not len(tokens) == len(values) == len(tops):
        raise Untrusted("the server's lists of tokens and log-probabilities differ in length")
    bounds = []
    for token, value, top in zip(tokens, values, tops, strict=True):
        if not isinstance(top, dict):
            raise Untrusted("the server names no likely tokens")
        bounds.append(bound(token, value, list(top.items()), is_mapping=True))
    return Told(tuple(bounds), sum(_size(token, None) for token in tokens))


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Untrusted("the server's log-probabilities are no list")
    return value


def _size(token: str, raw: Any) -> int:
    # Some tokenizers drop a token's leading space when it is named alone.
    return max(len(token.encode()), len(raw) if isinstance(raw, list) else 0) + 1
