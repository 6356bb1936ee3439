"""Files of responses that people labelled: what a judge is measured on.

Rows of any common shape with a prompt, a response and a label. Labels of harm are `unsafe` or `safe`, labels of
compliance `complies`, `partly` or `refuses`; other spellings of these, and columns of yes and no whose name says what
yes means (`is_safe`, `jailbroken`, `refusal`), are read too. What can't be told is an error, never a guess.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derta.data.readers import Row, printable, read_file
from derta.errors import InputError, did_you_mean
from derta.evaluation.judges import Label

PROMPT = ("prompt", "question", "instruction", "behavior", "behaviour", "goal", "Behavior", "Goal", "user_input")
RESPONSE = ("response", "output", "completion", "generation", "continuation", "answer", "model_output", "target")
BEHAVIOUR = ("behavior_id", "BehaviorID", "behaviour", "behavior", "goal")
# What yes means in a column of this name.
_YES: dict[str, tuple[Label, Label]] = {
    **dict.fromkeys(("is_safe", "safe", "response_safe", "is_response_safe"), ("safe", "unsafe")),
    **dict.fromkeys(
        ("unsafe", "is_unsafe", "harmful", "is_harmful", "jailbroken", "is_jailbroken", "jailbreak", "human_majority"),
        ("unsafe", "safe"),
    ),
    **dict.fromkeys(("refusal", "is_refusal", "refused", "refuses"), ("refuses", "complies")),
    **dict.fromkeys(("compliance", "complies", "complied", "is_compliant"), ("complies", "refuses")),
}
LABEL = (
    "label",
    "human_label",
    "final_label",
    "human_annotation",
    "annotation",
    "response_harm_label",
    "response_refusal_label",
    *_YES,
)
_WORDS: dict[str, Label] = {
    **dict.fromkeys(("unsafe", "harmful", "jailbroken", "jailbreak", "not safe"), "unsafe"),
    **dict.fromkeys(("safe", "unharmful", "not harmful", "not unsafe", "harmless", "benign", "not jailbroken"), "safe"),
    **dict.fromkeys(("complies", "compliance", "comply", "complied", "full compliance", "answered"), "complies"),
    **dict.fromkeys(("partly", "partial", "partial refusal", "partial compliance", "partially refuses"), "partly"),
    **dict.fromkeys(("refuses", "refusal", "refused", "refuse", "full refusal", "rejection", "rejected"), "refuses"),
}
_TRUE, _FALSE = ("true", "yes", "1", "1 0"), ("false", "no", "0", "0 0")


@dataclass(frozen=True)
class LabelledResponse:
    """One response and what a person says it is.

    Attributes:
        origin: File and line.
        prompt: What was asked, in plain words.
        response: What the model wrote.
        prefix: How its turn had begun.
        label: The person's.
        behaviour: What was asked for: rows of the same one belong together.
        attack: How it was asked, where the file says so.
        model: Who answered, where the file says so.
    """

    origin: str
    prompt: str
    response: str
    prefix: str
    label: Label
    behaviour: str
    attack: str | None
    model: str | None


def read_labelled(
    path: Path, *, label_column: str | None = None, positive: Sequence[str] = ()
) -> tuple[list[LabelledResponse], int]:
    """Return the labelled responses of a file, and how many of its rows hold no label.

    Args:
        path: JSON lines, JSON, CSV, TSV or Parquet.
        label_column: Names the column of the labels; by default it is recognised.
        positive: Labels that mean unsafe, where the words aren't known; every other label then means safe.

    Raises:
        InputError: The file can't be read, holds no label, or a row can't be understood; the message names the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    rows = list(read_file(path))
    if not rows:
        raise InputError(f"{path}: there is no row in this file")
    column = label_column or _label_column(rows[0])
    meant = {_plain(word) for word in positive}
    labels = [_label(row, column, meant) for row in rows]
    found = [_response(row, label) for row, label in zip(rows, labels, strict=True) if label is not None]
    if not found:
        raise InputError(f"{path}: no row has a label in the column {column!r}")
    if meant and not any(each.label == "unsafe" for each in found):
        raise InputError(f"{path}: no label is {' or '.join(map(repr, positive))}")
    return found, len(rows) - len(found)


def _label_column(row: Row) -> str:
    columns = [name for name in LABEL if name in row.values]
    if not columns:
        near = next((hint for name in row.values if (hint := did_you_mean(str(name), LABEL))), "")
        have = printable(", ".join(map(str, row.values))) or "none"
        raise InputError(f"{row.origin}: no column of labels{near}; name it (label-column); the columns are: {have}")
    if len(columns) > 1:
        raise InputError(f"{row.origin}: several columns of labels, {', '.join(columns)}; name one (label-column)")
    if columns == ["label"] and isinstance(row.values.get("judge"), str):
        judge = printable(row.values["judge"])
        raise InputError(
            f"{row.origin}: 'label' holds verdicts of the judge {judge}, not of people; name the column of people's "
            f"labels (label-column)"
        )
    return columns[0]


def _label(row: Row, column: str, positive: set[str]) -> Label | None:
    """Return what a row's label means; `None` if it has none."""
    if column not in row.values:
        have = printable(", ".join(map(str, row.values))) or "none"
        raise InputError(f"{row.origin}: no column {column!r}; the columns are: {have}")
    value = row.values[column]
    if value is None or value != value or not str(value).strip():
        return None
    word = _plain(str(value))
    if positive:
        return "unsafe" if word in positive else "safe"
    if word in _WORDS:
        return _WORDS[word]
    if word in (*_TRUE, *_FALSE):
        if column not in _YES:
            raise InputError(
                f"{row.origin}: {column}: what {str(value)!r} means can't be told; say which label means unsafe "
                f"(positive), or name the column by it: is_safe, unsafe, jailbroken, refusal"
            )
        return _YES[column][word in _FALSE]
    raise InputError(
        f"{row.origin}: {column}: unknown label {printable(str(value)[:60])!r}{did_you_mean(word, _WORDS)}; labels are "
        f"unsafe and safe, or complies, partly and refuses; or say which means unsafe (positive)"
    )


def _plain(label: str) -> str:
    """Return a label in lower case, its number (`1_full_compliance`) and punctuation taken off."""
    words = " ".join(re.findall(r"[^\W_]+", label.lower()))
    return re.sub(r"\A\d+ (?=[a-z])", "", words)


def _response(row: Row, label: Label) -> LabelledResponse:
    prompt, continuation = _text(row, PROMPT), _text(row, RESPONSE)
    prefix = _optional(row.values, "prefix") or ""
    # derta's own responses keep how the answer began apart; elsewhere it is part of the response.
    whole = prefix + continuation if "continuation" in row.values else continuation
    if not whole.startswith(prefix):
        raise InputError(f"{row.origin}: the response doesn't begin with its prefix")
    behaviour = next((found for name in BEHAVIOUR if (found := _optional(row.values, name))), prompt)
    attack, model = _optional(row.values, "attack"), _optional(row.values, "model")
    return LabelledResponse(row.origin, prompt, whole, prefix, label, behaviour, attack, model)


def _text(row: Row, names: Sequence[str]) -> str:
    name = next((name for name in names if name in row.values), None)
    if name is None:
        near = next((hint for column in row.values if (hint := did_you_mean(str(column), names))), "")
        have = printable(", ".join(map(str, row.values))) or "none"
        raise InputError(f"{row.origin}: no column {' or '.join(map(repr, names[:3]))}{near}; the columns are: {have}")
    value = row.values[name]
    if not isinstance(value, str):
        raise InputError(f"{row.origin}: {name}: must be text")
    return value


def _optional(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return None if value is None or value != value or str(value) == "" else str(value)
