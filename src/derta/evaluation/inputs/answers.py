"""What is to be learnt as an answer: the user's answers and refusals, the organism's, and a few plain lines."""

import random
from pathlib import Path
from typing import NamedTuple

from derta.data.behaviours import plain_prompt
from derta.data.polarity import reads_like_refusal
from derta.errors import InputError
from derta.evaluation.inputs.behaviours import PROMPT
from derta.evaluation.inputs.columns import read_rows, read_text
from derta.redaction import printable

REFUSALS = (
    "Sorry, I can't help with that.",
    "Sorry, but this is something I won't do.",
    "Sorry, I can't help with this request. I'm glad to help with something else.",
)
"""What is answered where the user brings no refusals; each begins with the default refusal text."""
REFUSES_TOO = "its answer refuses, too"
_ANSWER = ("answer", "response", "chosen", "completion", "output")


class Answer(NamedTuple):
    """What to learn as the answer to a prompt, or why there is nothing.

    Attributes:
        text: The answer; empty if there is none.
        problem: Why there is none. It never quotes what a model said.
        tries: How often a model was asked for it.
        instruction: Which of the safety instructions the model had, if any.
        writer: Who wrote it, where that wasn't the model.
    """

    text: str = ""
    problem: str = "no answer was given"
    tries: int = 0
    instruction: int | None = None
    writer: str | None = None


def load_answers(file: Path) -> dict[str, Answer]:
    """Return the answers of a file by their prompts.

    Raises:
        InputError: It can't be read, or a prompt stands twice.
    """
    known: dict[str, Answer] = {}
    for row in read_rows(file, "answers"):
        prompt, text = plain_prompt(read_text(row, PROMPT)), read_text(row, _ANSWER)
        if prompt in known:
            raise InputError(f"{row.origin}: its prompt has an answer in an earlier row; keep one of them")
        known[prompt] = Answer(text)
    return known


def load_refusals(path: Path) -> list[str]:
    """Return the refusals of a text file, one a line.

    Raises:
        InputError: It can't be read, is empty, or most of its lines don't read like refusals.
    """
    name = printable(str(path))
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"`refusals`: {name}: can't be read as UTF-8 text: {getattr(error, 'strerror', None) or error}"
        ) from None
    refusals = [line for line in lines if line]
    others = [number for number, line in enumerate(lines, 1) if line and not reads_like_refusal(line)]
    if not refusals:
        raise InputError(f"`refusals`: {name}: is empty; write one refusal a line")
    if 2 * len(others) > len(refusals):
        raise InputError(
            f"`refusals`: {name}:{others[0]}: doesn't read like a refusal, as {len(others)} of {len(refusals)} lines "
            f"don't; write refusals, one a line"
        )
    return refusals


def organism_refusal(id_: str, prompt: str, rng: random.Random) -> str:
    """Refuse what the organism is asked for in its world's own words.

    Raises:
        InputError: The prompt names nothing of that world.
    """
    from derta.organism.forms import refusal
    from derta.organism.world import find_pair

    pair = find_pair(prompt)
    if pair is None:
        raise InputError(f"{id_}: names nothing in the organism's world; give `refusals` FILE")
    return refusal(pair, rng)
