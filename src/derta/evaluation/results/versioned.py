"""An evaluation's files are of one version."""

from pathlib import Path
from typing import Any

from derta.errors import InputError
from derta.files import read_json

SCHEMA = 3
"""The version of an evaluation's files."""


def read_versioned(path: Path) -> dict[str, Any]:
    """Read one of an evaluation's files, if it is of this version.

    Raises:
        InputError: It can't be read, or is of another version.
    """
    document = read_json(path)
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {document.get('schema')!r}; this version reads {SCHEMA}: evaluate again")
    return document
