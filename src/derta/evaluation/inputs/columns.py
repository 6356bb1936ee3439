"""Rows of a user's file, and the one way to find a column in them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from derta.data.readers import Row, read_file
from derta.data.triples import whole_text
from derta.errors import InputError, did_you_mean


def read_rows(path: Path, field: str) -> list[Row]:
    """Return the rows of a file; a `.txt` file has a prompt on each line.

    Args:
        path: JSON lines, JSON, CSV, TSV, Parquet or text.
        field: The option that named the file, for messages.

    Raises:
        InputError: The file isn't there, can't be read or is empty.
    """
    if not path.is_file():
        raise InputError(f"`{field}`: {path}: no such file")
    rows = _read_lines(path) if path.suffix.lower() == ".txt" else list(read_file(path))
    if not rows:
        raise InputError(f"`{field}`: {path}: there is no row in this file")
    return rows


def _read_lines(path: Path) -> list[Row]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as UTF-8 text: {error}") from None
    return [Row(f"{path}:{number}", {"prompt": line.strip()}) for number, line in enumerate(lines, 1) if line.strip()]


def find_column(row: Row, names: Sequence[str]) -> str | None:
    """Return the first of the columns `names` that a row has, as the row spells it.

    Capitals, spaces, dashes and underscores make no difference.

    Raises:
        InputError: Two columns differ in these alone, and neither is spelt like the name.
    """
    spelt: dict[str, list[str]] = {}
    for column in row.values:
        spelt.setdefault(_plain(str(column)), []).append(column)
    for name in names:
        found = spelt.get(_plain(name), [])
        if name in found or len(found) == 1:
            return name if name in found else found[0]
        if found:
            raise InputError(f"{row.origin}: {' and '.join(map(repr, found))} are one column to derta; leave one out")
    return None


def read_text(row: Row, names: Sequence[str], *, may_be_empty: bool = False) -> str:
    """Return the text of the first of the columns `names` that a row has.

    A list that holds a single chat message counts as its text.

    Raises:
        InputError: There is no such column, or what it holds is no text; the message names file, line and column.
    """
    name = find_column(row, names)
    if name is None:
        have = ", ".join(map(str, row.values)) or "none"
        near = next((hint for column in row.values if (hint := did_you_mean(str(column), names))), "")
        raise InputError(f"{row.origin}: no column {' or '.join(map(repr, names[:2]))}{near}; the columns are: {have}")
    text = _text_of(row.values[name])
    if text is None or not (may_be_empty or text.strip()):
        raise InputError(f"{row.origin}: {name}: must be text{'' if may_be_empty else ', and not empty'}")
    return whole_text(text, f"{row.origin}: {name}")


def find_text(row: Row, names: Sequence[str]) -> str | None:
    """Return the text of the first of the columns `names` that holds any, or `None`.

    Raises:
        InputError: One of them holds something that is no text.
    """
    for name in names:
        column = find_column(row, [name])
        if column is not None and row.values[column] not in (None, ""):
            return read_text(row, [name], may_be_empty=True) or None
    return None


def find_value(row: Row, *names: str) -> str | None:
    """Return what stands in the first of the columns `names` that a row has, as text; `None` where that is nothing."""
    column = find_column(row, names)
    value = row.values[column] if column is not None else None
    if value is None:
        return None
    return whole_text(str(value).strip(), f"{row.origin}: {column}") or None


def check_ids(ids: Sequence[str], field: str, path: str | Path) -> None:
    """Stop at an id that occurs twice.

    Raises:
        InputError: One does.
    """
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise InputError(f"`{field}`: {path}: the id {id_!r} occurs twice; give each row its own")
        seen.add(id_)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _text_of(value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0].get("content")
    return value if isinstance(value, str) else None
