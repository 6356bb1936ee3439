"""What contexts say, in one language: all of it harmless, and none of it what an evaluation says."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Exchange = tuple[str, str]
"""What a user says and what the assistant answers."""
Say = Callable[[str], str | None]
"""Says something about a request; `None` where nothing can be said about it."""


class Opening(NamedTuple):
    """How a text begins that gives the answer to a request.

    Attributes:
        say: Writes it.
        given: Is what it already holds of the answer, up to there; empty if the whole answer follows.
    """

    say: Say
    given: str = ""


@dataclass(frozen=True)
class Encoding:
    """A way to write a request, and perhaps the answer, so that nobody reads it at a glance.

    Attributes:
        ask: Writes a request, after demonstrations in the clear that it encodes too; `None` if it can't.
        answer: Writes an answer as the request asks for it.
        demonstrations: Bounds how many demonstrations are shown.
    """

    ask: Callable[[str, Sequence[Exchange]], str | None]
    answer: Callable[[str], str] = str
    demonstrations: int = 0


def no_follow_up(earlier: str, request: str) -> None:
    """Leave every request as it is."""


@dataclass(frozen=True)
class Wordings:
    """What contexts say in one language.

    Attributes:
        small_talk: Holds harmless exchanges.
        role_plays: Put a request into a role-play or a document.
        refuse: Refuses a request.
        put_off: Holds what puts a request off without refusing it.
        insisting: Holds what a user says who won't take no for an answer.
        openings: Begin a text that gives the answer.
        prefaces: Begin an answer that complies.
        encodings: Encode a request.
        follow_up: Asks a request in the words that it needs after an earlier one; `None` if it needs them all.
    """

    small_talk: Sequence[Exchange]
    role_plays: Sequence[Say]
    refuse: Callable[[str, random.Random], str]
    put_off: Sequence[str]
    insisting: Sequence[str]
    openings: Sequence[Opening]
    prefaces: Sequence[Say]
    encodings: Sequence[Encoding]
    follow_up: Callable[[str, str], str | None] = field(default=no_follow_up)
