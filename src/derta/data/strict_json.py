"""JSON read strictly: an object that names a key twice is an error, as its readers would disagree on what it says."""

import json
from typing import Any


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice[:40]!r} occurs twice in one object; rename or drop one of them")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def loads(text: str) -> Any:
    """Read one JSON document.

    Raises:
        json.JSONDecodeError: it is malformed.
        ValueError: an object names a key twice, or a number has thousands of digits.
        RecursionError: brackets are nested without end.
    """
    return DECODER.decode(text)
