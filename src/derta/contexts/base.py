"""What a context is, and where its parts go in an example."""

import random
from collections.abc import Callable
from dataclasses import replace

from derta.contexts.materials import Materials, question_of
from derta.contexts.wordings import Exchange
from derta.data.triples import Example, Message

Context = Callable[[Example, Materials, random.Random], Example | None]
"""Puts an example into a context; `None` where that can't be done."""

CONTEXTS: dict[str, Context] = {}
"""The contexts by name."""


def register_context(name: str, context: Context) -> None:
    """Make a context known: its name can then stand in `contexts`."""
    CONTEXTS[name] = context


def behind(example: Example, *exchanges: Exchange) -> Example:
    """Put exchanges before the conversation of an example, after its system turn."""
    of_system = 1 if example.prompt[0]["role"] == "system" else 0
    earlier = [message for exchange in exchanges for message in turns(*exchange)]
    return replace(example, prompt=[*example.prompt[:of_system], *earlier, *example.prompt[of_system:]])


def turns(question: str, answer: str) -> tuple[Message, Message]:
    """Return an exchange as messages."""
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}


def asking(example: Example, text: str | None) -> Example | None:
    """Put `text` in the place of an example's last user turn; `None` stays `None`."""
    if text is None:
        return None
    return replace(example, prompt=[*example.prompt[:-1], {"role": "user", "content": text}])


def request_of(example: Example) -> str:
    """Return the last user turn of an example."""
    return example.prompt[-1]["content"]


def is_single_turn(example: Example) -> bool:
    """Whether its prompt is one user turn and nothing else."""
    return question_of(example) is not None


def read_text(example: Example, change: Callable[[str], str]) -> Example:
    """Change the harmful text that an example reads: r̂, or a fixed prefix of it."""
    return replace(
        example,
        rejected=None if example.rejected is None else change(example.rejected),
        harmful_prefix=change(example.harmful_prefix) if example.harmful_prefix else example.harmful_prefix,
    )
