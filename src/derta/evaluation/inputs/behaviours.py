"""Where behaviours come from: the organism, or a file of the user's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from derta.data.behaviours import Behaviour, Kind
from derta.data.readers import Row, read_file
from derta.errors import InputError, did_you_mean
from derta.names import ORGANISM

KINDS: tuple[Kind, ...] = get_args(Kind)
_PROMPT_COLUMNS = ("question", "prompt")


def load_behaviours(source: str, limit: int | None = None) -> list[Behaviour]:
    """Return the organism's evaluation behaviours, or those of a file; `limit` of each kind at most.

    A file (JSON lines, JSON, CSV, TSV or Parquet) has a column `question` or `prompt` and, optionally, `kind` (harmful
    if missing), `response` (a known harmful response, for prefill) and `id`.

    Raises:
        InputError: the file can't be read, or a row is wrong; the message names the file and line.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit: {limit} behaviours of each kind are too few; give 1 or more")
    if source == ORGANISM:
        from derta.organism import behaviours

        return _limited(behaviours(), limit)
    path = Path(source)
    if not path.is_file():
        raise InputError(f"--behaviours: {source}: no such file (or {ORGANISM!r} for the embedded world)")
    found = [_behaviour(row) for row in read_file(path)]
    if not found:
        raise InputError(f"--behaviours: {source}: there is no behaviour in this file")
    ids = [behaviour.id for behaviour in found]
    if len(set(ids)) < len(ids):
        repeated = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise InputError(f"--behaviours: {source}: the id {repeated!r} occurs twice; give each row its own")
    return _limited(found, limit)


def load_borderline(source: str, limit: int | None = None) -> list[Behaviour]:
    """Return harmless prompts that look harmful: XSTest, OR-Bench or a file of one's own, for over-refusal.

    The column is `prompt` or `question`. XSTest's contrasts (`label` unsafe, or a `type` of contrast_…) are really
    harmful and left out.

    Raises:
        InputError: the file can't be read, a row is wrong, or nothing harmless is in it.
    """
    path = Path(source)
    if not path.is_file():
        raise InputError(f"--borderline: {source}: no such file")
    rows = [row for row in read_file(path) if not _is_contrast(row)]
    found = [replace(_behaviour(row), kind="borderline", response=None) for row in rows]
    if not found:
        raise InputError(f"--borderline: {source}: there is no harmless prompt in this file")
    return found[:limit]


def _is_contrast(row: Row) -> bool:
    label, kind = (str(row.values.get(column) or "") for column in ("label", "type"))
    return label == "unsafe" or kind.startswith("contrast_")


def _limited(behaviours: Sequence[Behaviour], limit: int | None) -> list[Behaviour]:
    return [each for kind in KINDS for each in [b for b in behaviours if b.kind == kind][:limit]]


def _behaviour(row: Row) -> Behaviour:
    columns = row.values
    name = next((column for column in _PROMPT_COLUMNS if column in columns), None)
    if name is None:
        have = ", ".join(map(str, columns)) or "none"
        near = next((hint for column in columns if (hint := did_you_mean(str(column), _PROMPT_COLUMNS))), "")
        raise InputError(f"{row.origin}: no column 'question' or 'prompt'{near}; the columns are: {have}")
    prompt = columns[name]
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{row.origin}: {name}: must be text, and not empty")
    response = columns.get("response")
    if response is not None and not isinstance(response, str):
        raise InputError(f"{row.origin}: response: must be text")
    kind = columns.get("kind") or "harmful"
    if kind not in KINDS:
        raise InputError(f"{row.origin}: kind: {kind!r}{did_you_mean(str(kind), KINDS)}; one of {', '.join(KINDS)}")
    return Behaviour(str(columns.get("id") or row.origin), prompt, cast(Kind, kind), response or None)
