"""`derta.json`: what training leaves beside weights to say whose run they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derta.errors import InputError
from derta.files import read_json

IDENTITY = "derta.json"


def read_identity(directory: Path) -> dict[str, Any] | None:
    """Read whose run, checkpoint or model a directory holds; `None` if it doesn't say.

    Raises:
        InputError: The file is damaged.
    """
    path = directory / IDENTITY
    if not path.is_file():
        return None
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(f"{error}; mend the file, or name another directory") from error


def template_options(identity: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what the chat template got in training, if that was anything and is known."""
    options: dict[str, Any] | None = (identity or {}).get("settings", {}).get("chat_template_kwargs")
    return options
