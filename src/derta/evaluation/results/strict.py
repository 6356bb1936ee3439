"""Reading what may have been edited: JSON without doubtful spellings, dataclasses without doubtful values."""

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from derta.errors import InputError, first_line

SCHEMA = 3
"""The version of an evaluation's files."""

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""For a dataclass that is read from a file: no unknown fields, no NaN, no text or truth value for a number."""

_T = TypeVar("_T")


def validated(kind: type[_T], value: Any) -> _T:
    """Return a dataclass made of a JSON object.

    Raises:
        ValueError: A field is missing, unknown or of another type; the message names the first.
    """
    try:
        # In JSON an object may become a dataclass, however strict; in Python it may not.
        found: _T = _adapter(cast(Any, kind)).validate_json(json.dumps(value))
        return found
    except (TypeError, RecursionError) as error:
        raise ValueError(f"{kind.__name__}: {first_line(error)}") from None
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, wrong["loc"])) or kind.__name__
        raise ValueError(f"{field}: {wrong['msg'].lower()}") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def parse_json(text: str, origin: str) -> Any:
    """Parse JSON that says one thing: no key twice in an object, no NaN and no Infinity.

    Raises:
        InputError: It isn't such JSON; the message begins with `origin`.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin}: not JSON: {first_line(error)}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        InputError: It can't be read or holds something else.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    document = parse_json(text, str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return document


def read_versioned(path: Path) -> dict[str, Any]:
    """Read one of an evaluation's files, if it is of this version.

    Raises:
        InputError: It can't be read, or is of another version.
    """
    document = read_json(path)
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {document.get('schema')!r}; this version reads {SCHEMA}: evaluate again")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return document


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
