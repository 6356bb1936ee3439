"""`derta.json`: what training leaves beside weights to say whose run they are."""

import json
from pathlib import Path
from typing import Any

from derta.errors import InputError

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
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: can't be read: {error}; mend the file, or name another directory") from error
