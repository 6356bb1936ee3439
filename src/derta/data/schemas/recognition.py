"""Recognition: which schema a row has, and which of its columns are wrong."""

import importlib.util
import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any

from derta.data.readers import Row
from derta.data.schemas import PREFERENCE, SCHEMAS, Schema
from derta.data.schemas.chats import refuse_transcript
from derta.errors import InputError, did_you_mean, first_line
from derta.redaction import printable

# Columns of public data sets that have nothing to say about prompt or response.
_KNOWN_EXTRAS = frozenset(
    (
        *(
            "category",
            "data_type",
            "dataset",
            "id",
            "idx",
            "index",
            "lang",
            "language",
            "license",
            "made_by",
            "messages",
        ),
        *("meta", "metadata", "model", "origin", "score", "source", "split", "tactics", "tags", "tools", "uid", "url"),
        *("prompt_id", "prompt_source", "chosen_model", "chosen_rating", "rejected_model", "rejected_rating"),
        *("score_chosen", "score_rejected", "better_response_id", "safer_response_id"),
        *("response_0_harm_category", "response_0_severity_level", "response_0_sha256", "response_0_source"),
        *("response_1_harm_category", "response_1_severity_level", "response_1_sha256", "response_1_source"),
    )
)
_NEAR = 0.8  # similarity of a column's name to the name that it misspells
# Columns of these words judge a response: learning every row regardless would learn the harmful ones.
_VERDICTS = {
    *("label", "labels", "safe", "unsafe", "safety", "harm", "harmful", "harmless", "harmfulness", "toxic", "toxicity"),
    *("jailbreak", "jailbroken", "verdict", "judgement", "judgment", "flagged", "malicious", "moderation", "violation"),
}


def named_schema(name: str) -> Schema:
    """Return the schema called `name`, or the `SCHEMA` of the Python file of that name.

    Raises:
        InputError: there is none.
    """
    if name.endswith(".py"):
        return _schema_of_file(Path(name))
    for schema in SCHEMAS:
        if schema.name == name:
            return schema
    names = [schema.name for schema in SCHEMAS]
    raise InputError(
        f"--schema: unknown schema {name!r}{did_you_mean(name, names)}; auto, {', '.join(names)}, or a file of your own"
    )


def _schema_of_file(path: Path) -> Schema:
    spec = importlib.util.spec_from_file_location("derta_schema_of_a_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own file raises
        raise InputError(f"--schema: {printable(str(path))} can't be run: {printable(first_line(error))}") from None
    schema = getattr(module, "SCHEMA", None)
    if not isinstance(schema, Schema):
        raise InputError(f"--schema: {printable(str(path))} has no SCHEMA, a derta.data.schemas.Schema")
    return schema


def fitting(values: Mapping[str, Any]) -> Schema | None:
    """Return the first schema that a row has all columns of and whose values fit, or `None`."""
    columns = values.keys()
    return next((s for s in SCHEMAS if columns >= set(s.required) and s.fits(values)), None)


def recognised(row: Row) -> Schema:
    """Return the schema that a row has, or the one it nearly has.

    Raises:
        InputError: no schema has those columns, or they are an evaluation set's; says what they look like.
    """
    columns = tuple(map(str, row.values))
    schema = fitting(row.values)
    if schema is None or (schema is PREFERENCE and "prompt" not in columns):
        _refuse_evaluation_data(columns, row.origin)
    if schema is not None:
        _refuse_columns_for_rows(row)
        return schema
    return _nearest(row, columns)


def check_row(schema: Schema, row: Row) -> None:
    """Stop at a row that another schema fits: what its columns mean there may be the reverse of what they mean here.

    Raises:
        InputError: it does.
    """
    other = fitting(row.values)
    if other is not None and other.name != schema.name:
        raise InputError(
            f"{row.origin}: has schema {other.name}, while the first row has {schema.name}; keep each in a file of its "
            f"own"
        )


def check_columns(schema: Schema, columns: tuple[str, ...], origin: str) -> list[str]:
    """Stop at a missing or misspelt column, and return the columns that nothing is known about.

    Raises:
        InputError: a required column is missing, or an unknown one is spelt nearly like one the schema knows.
    """
    known = schema.required + schema.optional
    absent = [column for column in known if column not in columns]
    unknown = [column for column in columns if column not in known and column not in _KNOWN_EXTRAS]
    for column in unknown:
        near = _near(column, absent)
        if near:
            raise InputError(f"{origin}: unknown column {column[:40]!r} (did you mean {near!r}?); rename it")
    missing = [column for column in schema.required if column in absent]
    if missing:
        raise InputError(
            f"{origin}: column {missing[0]!r} is missing: schema {schema.name} needs {', '.join(schema.required)}; "
            f"found {_listed(columns)}; add it, or name another schema with --schema"
        )
    return unknown


def verdicts_among(columns: Iterable[str]) -> list[str]:
    """Return the columns that judge a response by their names: `is_safe`, `isHarmful`, `response.label`, …"""
    words = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
    return [column for column in columns if {word.lower() for word in words.findall(column)} & _VERDICTS]


def check_verdicts(row: Mapping[str, Any], verdicts: Iterable[str], origin: str, what: str) -> None:
    """Stop at a row with a verdict on its one response, which would be learnt whatever the verdict is.

    Raises:
        InputError: It has one.
    """
    given = next((column for column in verdicts if row.get(column) is not None), None)
    if given is not None and not row.get("rejected"):
        raise InputError(
            f"{origin}: column {given[:40]!r} seems to judge the response, and {what} would learn "
            f"every response whatever it says; drop the column if it does not, or keep only the rows to learn"
        )


def _refuse_evaluation_data(columns: tuple[str, ...], origin: str) -> None:
    without_extras = set(columns) - _KNOWN_EXTRAS - {"type", "label", "focus", "note"}
    if not {"question", "Behavior", "behavior", "goal", "prompts"} & set(columns) and without_extras != {"prompt"}:
        return
    raise InputError(
        f"{origin}: columns {_listed(columns)} are those of evaluation data (prompts, no response to train on): "
        f"never train on it; evaluate with derta eval --behaviours"
    )


def _refuse_columns_for_rows(row: Row) -> None:
    """Stop at a table written column by column, as pandas does by default."""
    texts = [value for value in row.values.values() if not isinstance(value, str)]
    if len(row.values) < 2 or len(texts) < len(row.values):
        return
    whole = all(isinstance(v, list) and v and all(isinstance(cell, str) for cell in v) for v in texts)
    if whole or all(isinstance(v, Mapping) and "0" in v for v in texts):
        raise InputError(
            f"{row.origin}: looks like a table written column by column; write one object a row (in pandas: "
            f"to_json(orient='records', lines=True))"
        )


def _nearest(row: Row, columns: tuple[str, ...]) -> Schema:
    """Return the schema most like `columns`, whose check will then name the column that is wrong."""

    def similarity(name: str) -> float:
        ratio = max((SequenceMatcher(None, name, column).ratio() for column in columns), default=0.0)
        return ratio if ratio >= _NEAR else 0.0

    def likeness(schema: Schema) -> float:
        found = {name: similarity(name) for name in schema.required + schema.optional}
        return sum(found.values()) - sum(not found[name] for name in schema.required)

    # The project's own form first among equals.
    best = max((PREFERENCE, *SCHEMAS), key=likeness)
    chat = _chat_column(row)
    if chat and likeness(best) < 1:
        raise InputError(f"{row.origin}: column {chat}")
    if likeness(best) <= 0:
        raise InputError(
            f"{row.origin}: columns {_listed(columns)} fit no schema; rename them to prompt, chosen and rejected, "
            f"or to those of another schema (derta data check --schemas lists them)"
        )
    return best


def _chat_column(row: Row) -> str:
    """Say which column looks like a conversation and what to do about it, if one does."""
    for column, value in row.values.items():
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, Mapping) and "role" in first:
            return f"{column[:40]!r} looks like a chat by role and content; rename it to 'messages'"
        if isinstance(first, Mapping) and "from" in first:
            return f"{column[:40]!r} looks like a chat by from and value; rename it to 'conversations'"
        refuse_transcript(value, column, row.origin)
    return ""


def _near(column: str, absent: list[str]) -> str | None:
    """Return the absent column that `column` misspells ('rejcted') or stands for ('rejected_response')."""
    plain = column.strip().lower()
    begins = [name for name in absent if plain.startswith(name)]
    if begins:
        return begins[0]
    return next(iter(get_close_matches(plain, absent, n=1, cutoff=_NEAR)), None)


def _listed(columns: tuple[str, ...]) -> str:
    shown = ", ".join(repr(column[:40]) for column in columns[:8])
    return shown + (", ..." if len(columns) > 8 else "") if columns else "(none)"
