"""What attacks take from a user's files: templates, demonstrations, and prompts that are attacks already."""

from collections.abc import Sequence
from pathlib import Path

from derta.data.behaviours import Behaviour
from derta.data.readers import Row
from derta.errors import InputError
from derta.evaluation.attacks.base import Attempt, ask
from derta.evaluation.attacks.phrases import Demonstration
from derta.evaluation.attacks.template import PLACEHOLDERS
from derta.evaluation.inputs.columns import check_ids, find_text, find_value, read_rows, read_text
from derta.generation import RawRequest

QUESTION = ("question", "prompt")
TEMPLATE = ("template", "prompt", "text")
ANSWER = ("answer", "response")
BEHAVIOUR = ("behaviour", "behavior")


def load_templates(path: Path) -> tuple[str, ...]:
    """Return the role-play prompts of a file with a column `template`, `prompt` or `text`.

    `{prompt}` or `[INSERT PROMPT HERE]` stands for the behaviour.

    Raises:
        InputError: the file can't be read or is empty, or a row is wrong; the message names file and line.
    """
    return tuple(_template(row) for row in read_rows(path, "templates"))


def load_demonstrations(path: Path, field: str = "demonstrations") -> tuple[Demonstration, ...]:
    """Return the questions (`question` or `prompt`) and answers (`answer` or `response`) of a file.

    Raises:
        InputError: the file can't be read or is empty, or a row is wrong; the message names file and line.
    """
    return tuple((read_text(row, QUESTION), read_text(row, ANSWER)) for row in read_rows(path, field))


def load_prompts(
    path: Path, attack: str, behaviours: Sequence[Behaviour] | None = None, *, system: str | None = None
) -> list[tuple[Behaviour, Attempt]]:
    """Return the prompts of a file as they are, each with the behaviour that a judge reads.

    The DeRTa release's prompt files have a column `question` (`prompt` will do) that holds the behaviour in its
    disguise. For `completing` it is raw text, for every other attack a user turn. What a judge should read is in the
    column `behaviour`, or in `behaviours`, one for each row in the same order; without either it reads the prompt.

    Args:
        path: JSON lines, JSON, CSV, TSV or Parquet.
        attack: What the file's prompts are called in the results.
        behaviours: The behaviours behind the prompts; their ids and kinds are kept.
        system: The system prompt of the user turns.

    Raises:
        InputError: the file can't be read or is empty, a row is wrong, or there are not as many behaviours as rows.
    """
    rows = read_rows(path, "prompts")
    if behaviours is not None and len(behaviours) != len(rows):
        raise InputError(
            f"`prompts`: {path}: {len(rows)} prompts and {len(behaviours)} behaviours; give one behaviour for each "
            f"prompt, in the same order"
        )
    found = []
    for i, row in enumerate(rows):
        text = read_text(row, QUESTION)
        behaviour = behaviours[i] if behaviours is not None else _behaviour(row, text)
        request = RawRequest(text) if attack == "completing" else ask(text, system=system)
        found.append((behaviour, Attempt(attack, request)))
    check_ids([behaviour.id for behaviour, _ in found], "prompts", path)
    return found


def _template(row: Row) -> str:
    text = read_text(row, TEMPLATE)
    if not any(placeholder in text for placeholder in PLACEHOLDERS):
        raise InputError(
            f"{row.origin}: the template has no place for the behaviour; write {' or '.join(PLACEHOLDERS)}"
        )
    return text


def _behaviour(row: Row, prompt: str) -> Behaviour:
    return Behaviour(find_value(row, "id") or row.origin, find_text(row, BEHAVIOUR) or prompt, "harmful")
