"""Files of others that say one thing: JSON read into dataclasses, and YAML without surprises."""

import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from derta.errors import InputError, first_invalid, first_line

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""For a dataclass that is read from a file: no unknown fields, no NaN, no text or truth value for a number."""
_DEEPEST, _MOST_NODES = 20, 100_000
"""Levels and entries of YAML at most."""

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


def read_yaml(path: Path, what: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a YAML file that holds a mapping, and the line that each of its keys stands on.

    Args:
        path (`Path`): The file.
        what (`str`): What it is, for messages: a recipe, a study.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't read the {what}: {getattr(error, 'strerror', None) or error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _check_nodes(node, path, what)
        document = yaml.safe_load(text)
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}:{line}: not YAML: the control character {chr(error.character)!r}") from error
    except RecursionError as error:
        raise InputError(f"{path}: not a {what}: nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{path}: not YAML: {first_line(error)}") from error
    if not isinstance(document, dict) or not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path}: a {what} is a YAML mapping of options to values")
    return document, {str(key.value): key.start_mark.line + 1 for key, _ in node.value}


def _check_nodes(root: yaml.Node, path: Path, what: str) -> None:
    waiting, count = [(root, 0)], 0
    while waiting:
        (node, depth), count = waiting.pop(), count + 1
        place = f"{path}:{node.start_mark.line + 1}"
        # Aliases of aliases grow without bound.
        if depth > _DEEPEST or count > _MOST_NODES:
            raise InputError(f"{place}: not a {what}: nested too deeply")
        if isinstance(node, yaml.ScalarNode):
            control = [c for c in node.value if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n"]
            if control:
                raise InputError(f"{place}: the control character {control[0]!r} in a value; leave it out")
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(each, depth + 1) for each in node.value]
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = str(key.value)
                if name in seen:
                    line = key.start_mark.line + 1
                    raise InputError(f"{path}:{line}: the key {name!r} stands twice; leave one out")
                seen.add(name)
                waiting += [(key, depth + 1), (value, depth + 1)]
