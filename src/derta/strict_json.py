"""Dataclasses read from JSON that may have been edited: no doubtful value passes."""

import json
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from derta.errors import first_invalid, first_line

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
        raise ValueError(first_invalid(error)) from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
