"""What a schema is, and what adapters share: text, flags, pairs of responses to one prompt."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from derta.data.readers import OnProblem, Row
from derta.data.triples import checked_text
from derta.errors import InputError

Read = Callable[[OnProblem], Iterator[Row]]
"""Begins to read a source's rows; a schema may call it more than once."""

Skipped = Counter[str]
"""How many rows a schema had no use for, by reason."""

Adapter = Callable[[Read, Skipped, OnProblem], Iterator[Row]]
"""Turns a source's rows into canonical ones."""


def _always(values: Mapping[str, Any]) -> bool:
    return True


class Schema(NamedTuple):
    """One layout of columns.

    Attributes:
        name: What `--schema` calls it.
        about: Says in a line which data have it and what they become.
        required: Columns that every row has.
        optional: Columns that a row may have.
        adapt: Turns a source's rows into canonical ones.
        example: Rows that have it.
        fits: Tells it from others with the same columns, by a row's values.
    """

    name: str
    about: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    adapt: Adapter
    example: Sequence[Mapping[str, Any]]
    fits: Callable[[Mapping[str, Any]], bool] = _always


def each(convert: Callable[[Row], dict[str, Any] | str]) -> Adapter:
    """Make an adapter of a function from one row to a canonical one, or to the reason for skipping it."""

    def adapt(read: Read, skipped: Skipped, on_problem: OnProblem) -> Iterator[Row]:
        for row in read(on_problem):
            try:
                converted = convert(row)
            except InputError as error:
                on_problem(error)
                continue
            if isinstance(converted, str):
                skipped[converted] += 1
            else:
                yield Row(row.origin, converted)

    return adapt


def pairs(prompt: str, response: str, is_safe: Callable[[Row], bool]) -> Adapter:
    """Make an adapter that groups judged responses by prompt and pairs safe with unsafe ones in order.

    Annotators may disagree about one response; it is then left out.
    """

    def adapt(read: Read, skipped: Skipped, on_problem: OnProblem) -> Iterator[Row]:
        prompts: dict[str, dict[str, tuple[set[bool], str]]] = {}
        spelt: dict[str, str] = {}
        for row in read(on_problem):
            try:
                asked, answered, safe = text(row, prompt), text(row, response), is_safe(row)
            except InputError as error:
                on_problem(error)
                continue
            asked, answered = spelt.setdefault(_same(asked), asked), spelt.setdefault(_same(answered), answered)
            labels, _ = prompts.setdefault(asked, {}).setdefault(answered, (set(), row.origin))
            if safe in labels:
                skipped["same prompt, response and label again"] += 1
            labels.add(safe)
        for asked, responses in prompts.items():
            safe_ones = [answer for answer, (labels, _) in responses.items() if labels == {True}]
            unsafe_ones = [(answer, origin) for answer, (labels, origin) in responses.items() if labels == {False}]
            for chosen, (rejected, origin) in zip(safe_ones, unsafe_ones, strict=False):
                yield Row(origin, {"prompt": asked, "chosen": chosen, "rejected": rejected})
            paired = min(len(safe_ones), len(unsafe_ones))
            skipped.update(
                {
                    "labelled both safe and unsafe": sum(2 for labels, _ in responses.values() if len(labels) == 2),
                    "safe without an unsafe response to pair it with": len(safe_ones) - paired,
                    "unsafe without a safe response to pair it with": len(unsafe_ones) - paired,
                }
            )

    return adapt


def _same(text: str) -> str:
    """Return a text as texts are compared: white space and ways to write a character make no difference."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def text(row: Row, column: str) -> str:
    """Return the text in a column."""
    return checked_text(row.values[column], column, row.origin)


def flag(row: Row, column: str) -> bool:
    """Return the boolean in a column, which a table has as a word."""
    value = row.values[column]
    word = str(value).strip().lower()
    if word not in ("true", "false"):
        raise InputError(f"{row.origin}: {column} must be true or false, not {str(value)[:40]!r}")
    return word == "true"
