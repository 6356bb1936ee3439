"""One choice of a completion on its way through the guard, streamed or whole, chat or text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from derta.guard.calibration import Calibration
from derta.guard.hold_back import HoldBack
from derta.guard.probabilities import RefusalBound, Told, Untrusted, of_chat, of_text

_HELD_BYTES = 1_000_000
"""Text of one choice that may wait at most: a server that sends more without tokens is no server."""
_SLACK = 16
"""Bytes by which text may be longer than the tokens it is said to be made of."""
_NO_TEXT = ("role", "id", "type", "index")


@dataclass(frozen=True)
class Asked:
    """What a request asks for, as far as it concerns the guard.

    Attributes:
        is_chat: Whether it is a chat completion.
        follows: Whether what is written continues a text that the client has: a prompt, or a begun answer.
        logprobs: How many likely tokens the client itself asked for; `None` if it asked for no log-probabilities.
    """

    is_chat: bool
    follows: bool
    logprobs: int | None

    def strip(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Take out of a choice the log-probabilities that only the guard asked for."""
        given = choice.get("logprobs")
        if self.logprobs is None or not isinstance(given, dict):
            return {**choice, "logprobs": None} if "logprobs" in choice else choice
        kept = dict(given)
        if self.is_chat:
            for name in ("content", "refusal"):
                if isinstance(kept.get(name), list):
                    kept[name] = [_shortened(entry, self.logprobs) for entry in kept[name]]
        else:
            tops = kept.get("top_logprobs") or []
            kept["top_logprobs"] = [dict(list(top.items())[: self.logprobs]) for top in tops] if self.logprobs else None
        return {**choice, "logprobs": kept}


def _shortened(entry: dict[str, Any], count: int) -> dict[str, Any]:
    return {**entry, "top_logprobs": entry.get("top_logprobs", [])[:count]}


class Choice:
    """Watches over one choice.

    Args:
        calibration: Says when to stop it.
        asked: Is what the client asked for.
        index: Is the choice's number.

    Attributes:
        hold_back: What is held, and where it was stopped.
        is_over: Whether the choice has ended, by itself or by the guard.
    """

    def __init__(self, calibration: Calibration, asked: Asked, index: int) -> None:
        self._calibration = calibration
        self._asked = asked
        self._bound = RefusalBound(calibration.spellings)
        self._index = index
        self._room = _SLACK
        self._held = 0
        self._has_text = False
        self.hold_back: HoldBack[dict[str, Any]] = HoldBack(calibration.threshold, calibration.hold_back)
        self.is_over = False

    def push(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        """Take a piece of the choice from a stream, and return the pieces that may leave.

        Raises:
            Untrusted: It has text without the log-probabilities of its tokens, or more text than can be held.
        """
        if self.is_over:
            return []
        told = self._told(choice.get("logprobs"))
        text = text_size(choice.get("delta") if self._asked.is_chat else choice.get("text"))
        self._account(told, text)
        ends = choice.get("finish_reason") is not None
        piece = self._asked.strip(choice)
        left = self.hold_back.push(piece, told.bounds)
        if ends:
            left += self.hold_back.end()
        if self.hold_back.stopped_at is not None:
            left = [self._ending("delta")]
        self.is_over = ends or self.hold_back.stopped_at is not None
        leaving = sum(map(self._size, left))
        self._held = 0 if self.is_over else self._held + text - leaving
        self._has_text |= leaving > 0
        if self._held > _HELD_BYTES:
            raise Untrusted("the server sends text faster than its tokens")
        return left

    def whole(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return a whole choice as it is or, if it was to be stopped anywhere, refusing.

        Raises:
            Untrusted: It has text without the log-probabilities of its tokens.
        """
        told = self._told(choice.get("logprobs"))
        self._account(told, text_size(choice.get("message") if self._asked.is_chat else choice.get("text")))
        self.hold_back.push(choice, told.bounds)
        if self.hold_back.stopped_at is None:
            return self._asked.strip(choice)
        return self._ending("message")

    def _told(self, logprobs: Any) -> Told:
        return of_chat(logprobs, self._bound) if self._asked.is_chat else of_text(logprobs, self._bound)

    def _account(self, told: Told, text: int) -> None:
        """Check that there were tokens for the text: what no log-probability stands for can't be guarded."""
        self._room += told.size - text
        if self._room < 0 or (text and self.hold_back.seen + len(told.bounds) == 0):
            raise Untrusted("the server sends text without the log-probabilities of its tokens")

    def _size(self, piece: dict[str, Any]) -> int:
        return text_size(piece.get("delta") if self._asked.is_chat else piece.get("text"))

    def _ending(self, name: str) -> dict[str, Any]:
        words = self._calibration.ending(follows=self._has_text or self._asked.follows)
        end: dict[str, Any] = {"index": self._index, "finish_reason": "content_filter", "logprobs": None}
        if not self._asked.is_chat:
            return {**end, "text": words}
        return {**end, name: {"role": "assistant", "content": words}}


def text_size(value: Any) -> int:
    """Return how many bytes of text a message, a delta or a text holds: content, reasoning and calls of tools."""
    return sum(len(text.encode(errors="replace")) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            if name not in _NO_TEXT:
                yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
