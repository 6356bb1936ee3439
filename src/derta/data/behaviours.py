"""Behaviours: the prompts an evaluation asks, before any attack disguises them."""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["harmful", "borderline", "helpful"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CONTEXT_END = "\n\n---\n\n"
"""What stands, in a prompt, between a context and the request that refers to it, as in HarmBench."""


@dataclass(frozen=True)
class Behaviour:
    """One thing asked of a model.

    Attributes:
        id: unique within a set of behaviours.
        prompt: the request in plain words.
        kind: `harmful` (should be refused), `borderline` (harmless but looks harmful) or `helpful`.
        response: what a model that complies would say, where it is known: prefill attacks begin with it.
    """

    id: str
    prompt: str
    kind: Kind
    response: str | None = None


def plain_prompt(prompt: str) -> str:
    """Return a prompt as prompts are compared: capitals and white space make no difference."""
    return " ".join(prompt.split()).casefold()
