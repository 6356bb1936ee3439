"""Files of responses that people labelled: what a judge is measured on.

Rows of any common shape with a prompt, a response and a label. Labels of harm are `unsafe` or `safe`, labels of
compliance `complies`, `partly` or `refuses`; other spellings of these, and columns of yes and no whose name says what
yes means (`is_safe`, `jailbroken`, `refusal`), are read too. What can't be told is an error, never a guess.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from derta.data.readers import Row
from derta.errors import InputError, did_you_mean
from derta.evaluation.inputs.columns import find_column, find_text, read_rows, read_text
from derta.evaluation.results.verdict import Label
from derta.redaction import printable

PROMPT = ("prompt", "question", "instruction", "behavior", "behaviour", "goal", "user_input")
RESPONSE = ("response", "output", "completion", "generation", "answer", "model_output")
BEHAVIOUR = ("behavior_id", "behaviour_id", "behaviour", "behavior", "goal")
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
    path: Path, *, label_column: str | None = None, unsafe: Sequence[str] = ()
) -> tuple[list[LabelledResponse], int]:
    """Return the labelled responses of a file, and how many of its rows hold no label.

    Args:
        path: JSON lines, JSON, CSV, TSV or Parquet.
        label_column: Names the column of the labels; by default it is recognised.
        unsafe: Labels that mean unsafe, where the words aren't known; every other label then means safe.

    Raises:
        InputError: The file can't be read, holds no label, or one of `unsafe` isn't among them or stands for several;
            or a row can't be understood: the message names the line.
    """
    rows = read_rows(path, "file")
    column = label_column or _label_column(rows[0])
    meant = _meant(unsafe, [_exact(row.values.get(column)) for row in rows], path)
    labels = [_label(row, column, meant) for row in rows]
    found = [_response(row, label) for row, label in zip(rows, labels, strict=True) if label is not None]
    if not found:
        raise InputError(f"{path}: no row has a label in the column {column!r}")
    return found, len(rows) - len(found)


def _meant(unsafe: Sequence[str], labels: Sequence[str], path: Path) -> set[str]:
    """Return the labels of a file that the user's words for unsafe name: as they stand, else without punctuation."""
    there = set(labels) - {""}
    meant = set()
    for word in unsafe:
        named = {_exact(word)} & there or {label for label in there if _plain(label) == _plain(word) != ""}
        if not named:
            raise InputError(f"{path}: no label is {word!r}{did_you_mean(word, there)}")
        if len(named) > 1:
            raise InputError(
                f"{path}: `unsafe_label` {word!r} may be {' or '.join(map(repr, sorted(named)))}; say which"
            )
        meant |= named
    return meant


def _exact(label: object) -> str:
    """Return a label as labels are compared that the user names: capitals make no difference, nor does 1.0 for 1."""
    text = "" if label is None or label != label else str(label).strip().casefold()
    return text.removesuffix(".0") if re.fullmatch(r"[-+]?\d+\.0", text) else text


def _label_column(row: Row) -> str:
    columns = [name for name in LABEL if name in row.values]
    if not columns:
        others = [str(name) for name in row.values if name not in (*PROMPT, *RESPONSE)]
        near = next((hint for name in others if (hint := did_you_mean(name, LABEL))), "")
        have = printable(", ".join(map(str, row.values))) or "none"
        raise InputError(
            f"{row.origin}: no column of labels{near}; name it with `label_column`; the columns are: {have}"
        )
    if len(columns) > 1:
        raise InputError(f"{row.origin}: several columns of labels, {', '.join(columns)}; name one with `label_column`")
    if columns == ["label"] and isinstance(row.values.get("judge"), str):
        judge = printable(row.values["judge"])
        raise InputError(
            f"{row.origin}: 'label' holds verdicts of the judge {judge}, not of people; name the column of people's "
            f"labels with `label_column`"
        )
    return columns[0]


def _label(row: Row, column: str, unsafe: set[str]) -> Label | None:
    """Return what a row's label means; `None` if it has none."""
    if column not in row.values:
        have = printable(", ".join(map(str, row.values))) or "none"
        raise InputError(f"{row.origin}: no column {column!r}; the columns are: {have}")
    value = row.values[column]
    if value is None or value != value or not str(value).strip():
        return None
    if unsafe:
        return "unsafe" if _exact(value) in unsafe else "safe"
    word = _plain(str(value))
    if word in _WORDS:
        return _WORDS[word]
    if word in (*_TRUE, *_FALSE):
        if column not in _YES:
            raise InputError(
                f"{row.origin}: {column}: what {str(value)!r} means can't be told; say which label means unsafe "
                f"with `unsafe_label`, or name the column by it: is_safe, unsafe, jailbroken, refusal"
            )
        return _YES[column][word in _FALSE]
    raise InputError(
        f"{row.origin}: {column}: unknown label {printable(str(value)[:60])!r}{did_you_mean(word, _WORDS)}; labels are "
        f"unsafe and safe, or complies, partly and refuses; or say which means unsafe with `unsafe_label`"
    )


def _plain(label: str) -> str:
    """Return a label in lower case, its number (`1_full_compliance`) and punctuation taken off; a sign stays."""
    if re.match(r"\s*[-+−]\s*[\d.]", label):
        return label.strip()
    words = " ".join(re.findall(r"[^\W_]+", label.lower()))
    return re.sub(r"\A\d+ (?=[a-z])", "", words)


def _response(row: Row, label: Label) -> LabelledResponse:
    prompt, prefix = read_text(row, PROMPT), find_text(row, ["prefix"]) or ""
    if find_column(row, ["continuation"]) is not None:
        # derta's own responses keep how the answer began apart; elsewhere it is part of the response.
        response = prefix + read_text(row, ["continuation"], may_be_empty=True)
    else:
        response = read_text(row, RESPONSE, may_be_empty=True)
    if not response.startswith(prefix):
        raise InputError(f"{row.origin}: the response doesn't begin with its prefix")
    behaviour = find_text(row, BEHAVIOUR) or prompt
    attack, model = find_text(row, ["attack"]), find_text(row, ["model"])
    return LabelledResponse(row.origin, prompt, response, prefix, label, behaviour, attack, model)
