"""What attacks take from a user's files: templates, demonstrations, and prompts that are attacks already."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from derta.data.behaviours import Behaviour
from derta.data.readers import Row, read_file
from derta.errors import InputError, did_you_mean
from derta.evaluation.attacks.base import Attempt, ask
from derta.evaluation.attacks.phrases import Demonstration
from derta.evaluation.attacks.template import PLACEHOLDERS
from derta.inference import RawRequest

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
    return tuple(_template(row) for row in _rows(path, "--templates"))


def load_demonstrations(path: Path) -> tuple[Demonstration, ...]:
    """Return the questions (`question` or `prompt`) and answers (`answer` or `response`) of a file.

    Raises:
        InputError: the file can't be read or is empty, or a row is wrong; the message names file and line.
    """
    return tuple((_text(row, QUESTION), _text(row, ANSWER)) for row in _rows(path, "--demonstrations"))


def load_prompts(
    path: Path, attack: str, behaviours: Sequence[Behaviour] | None = None
) -> list[tuple[Behaviour, Attempt]]:
    """Return the prompts of a file as they are, each with the behaviour that a judge reads.

    The DeRTa release's prompt files have a column `question` (`prompt` will do) that holds the behaviour in its
    disguise. For `completing` it is raw text, for every other attack a user turn. What a judge should read is in the
    column `behaviour`, or in `behaviours`, one for each row in the same order; without either it reads the prompt.

    Args:
        path: JSON lines, JSON, CSV, TSV or Parquet.
        attack: what the file's prompts are called in the results.
        behaviours: the behaviours behind the prompts; their ids and kinds are kept.

    Raises:
        InputError: the file can't be read or is empty, a row is wrong, or there are not as many behaviours as rows.
    """
    rows = _rows(path, "--prompts")
    if behaviours is not None and len(behaviours) != len(rows):
        raise InputError(
            f"--prompts: {path}: {len(rows)} prompts and {len(behaviours)} behaviours; give one behaviour for each "
            f"prompt, in the same order"
        )
    found = []
    for i, row in enumerate(rows):
        text = _text(row, QUESTION)
        behaviour = behaviours[i] if behaviours is not None else _behaviour(row, text)
        found.append((behaviour, Attempt(attack, RawRequest(text) if attack == "completing" else ask(text))))
    _check_ids([behaviour.id for behaviour, _ in found], path)
    return found


def _rows(path: Path, flag: str) -> list[Row]:
    if not path.is_file():
        raise InputError(f"{flag}: {path}: no such file")
    rows = list(read_file(path))
    if not rows:
        raise InputError(f"{flag}: {path}: there is no row in this file")
    return rows


def _template(row: Row) -> str:
    text = _text(row, TEMPLATE)
    if not any(placeholder in text for placeholder in PLACEHOLDERS):
        raise InputError(
            f"{row.origin}: the template has no place for the behaviour; write {' or '.join(PLACEHOLDERS)}"
        )
    return text


def _behaviour(row: Row, prompt: str) -> Behaviour:
    named = any(row.values.get(name) is not None for name in BEHAVIOUR)
    return Behaviour(str(row.values.get("id") or row.origin), _text(row, BEHAVIOUR) if named else prompt, "harmful")


def _text(row: Row, names: Sequence[str]) -> str:
    """Return the text of the first of the columns `names` that a row has."""
    name = next((name for name in names if name in row.values), None)
    if name is None:
        have = ", ".join(map(str, row.values)) or "none"
        near = next((hint for column in row.values if (hint := did_you_mean(str(column), names))), "")
        raise InputError(f"{row.origin}: no column {' or '.join(map(repr, names))}{near}; the columns are: {have}")
    text = row.values[name]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{row.origin}: {name}: must be text, and not empty")
    return text


def _check_ids(ids: Sequence[str], path: Path) -> None:
    repeated = next((id_ for id_, count in Counter(ids).items() if count > 1), None)
    if repeated is not None:
        raise InputError(f"--prompts: {path}: the id {repeated!r} occurs twice; give each row its own")
